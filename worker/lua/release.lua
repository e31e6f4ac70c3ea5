-- Give a claimed member back, due at a time, and note what was seen meanwhile.
--
-- KEYS  1 wheel  2 its leases  3 job record  4 counters  5 pace of the lane  6 its log  7 what it awaits
-- ARGV  1 member  2 token  3 due (ms), '' to take it off the wheel  4 record field to set or ''  5 its value
--       6 what became of a request ('' where nothing is to be told)  7 its number  8 pause asked for (ms)  9 window (ms)
--       10... counters to raise: name, by how much
-- RETURNS  1 released, 0 the claim was another's
-- INVARIANT  without the lease nothing is written; a record that is gone is not made again. Whoever gives it back is
--            alive: deaths are no longer in a row; crashes are until something was seen.
-- include pace
local exists = redis.call('TYPE', KEYS[3]).ok == 'hash' and redis.call('HEXISTS', KEYS[3], 'rev') == 1
redis.call('ZCARD', KEYS[1]); redis.call('HLEN', KEYS[4]); redis.call('HLEN', KEYS[5])
redis.call('ZCARD', KEYS[6]); redis.call('ZCARD', KEYS[7])
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
if exists then redis.call('HDEL', KEYS[3], 'deaths') end
if ARGV[4] ~= '' and exists then
  redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
  redis.call('HDEL', KEYS[3], 'crashes')
end
if ARGV[6] ~= '' then
  pace_tell(5, 0, 0, {what = ARGV[6], number = ARGV[7], pause_ms = ARGV[8], window_ms = ARGV[9]})
end
for i = 10, #ARGV, 2 do redis.pcall('HINCRBY', KEYS[4], ARGV[i], ARGV[i + 1]) end
return 1
