-- Give a claimed delivery back unattempted, due at a time, or take it out.
--
-- KEYS  1 leases of deliveries  2 delivery  (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 most at a time to it  4 most to its host
--       5 for how long (ms) a due delivery waits for a destination that fails
--       6 delivery id  7 token  8 due (ms), '' to take it out
-- RETURNS  1 given back, 0 the claim was another's
-- INVARIANT  whoever gives it back is alive: deaths are no longer in a row.
-- include destination
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local d = destination_read(ARGV[1], ARGV[2], now_ms, tonumber(ARGV[3]), tonumber(ARGV[4]))
if redis.call('HGET', KEYS[1], ARGV[6]) ~= ARGV[7] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[6])
if redis.call('TYPE', KEYS[2]).ok == 'hash' then redis.call('HDEL', KEYS[2], 'deaths') end
destination_done(d, ARGV[6])
if ARGV[8] ~= '' then redis.call('ZADD', d.waiting, ARGV[8], ARGV[6]) end
destination_learn(d, now_ms, ARGV[6], '', 0, 0, 0)
destination_plan(d, now_ms, tonumber(ARGV[5]))
return 1
