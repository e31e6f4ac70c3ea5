-- Record an attempt of a delivery and what becomes of it.
--
-- KEYS  1 delivery  2 deliver wheel  3 its leases  4 job record  5 index of its state before  6 index after  7 counters
-- ARGV  1 delivery id  2 token  3 new state  4 due (ms), '' to take it off the wheel  5 attempts (JSON)
--       6 URL that wants no more of this job, or ''  7... counters to raise: name, by how much
-- RETURNS  1 written, 0 the claim was another's or the delivery is gone
-- INVARIANT  the job's count of pending deliveries falls exactly when one leaves 'pending'.
local state = redis.call('HGET', KEYS[1], 'state')
local job_exists = redis.call('HEXISTS', KEYS[4], 'rev')
redis.call('ZCARD', KEYS[2]); redis.call('ZCARD', KEYS[5]); redis.call('ZCARD', KEYS[6]); redis.call('HLEN', KEYS[7])
if not state or redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return 0 end
local seq = redis.call('HGET', KEYS[1], 'seq')
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[1], 'next_at_ms')
else
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
  redis.call('HSET', KEYS[1], 'next_at_ms', ARGV[4])
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'attempts', ARGV[5])
if state ~= ARGV[3] then
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('ZADD', KEYS[6], seq, ARGV[1])
  if job_exists == 1 and state == 'pending' then redis.pcall('HINCRBY', KEYS[4], 'pending', -1) end
end
if ARGV[6] ~= '' and job_exists == 1 then redis.call('HSET', KEYS[4], 'gone_url', ARGV[6]) end
for i = 7, #ARGV, 2 do redis.pcall('HINCRBY', KEYS[7], ARGV[i], ARGV[i + 1]) end
return 1
