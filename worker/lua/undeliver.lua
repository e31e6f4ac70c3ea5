-- Give a claimed delivery back unattempted, due at a time, or take it out.
--
-- KEYS  1 leases of deliveries  (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 delivery id  4 token  5 due (ms), '' to take it out
--       6 most at a time to a destination  7 for how long (ms) a due delivery waits for a destination that fails
-- RETURNS  1 given back, 0 the claim was another's
-- include destination
local d = destination_read(ARGV[1], ARGV[2])
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[4] then return 0 end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HDEL', KEYS[1], ARGV[3])
destination_done(d, ARGV[3])
if ARGV[5] ~= '' then redis.call('ZADD', d.waiting, ARGV[5], ARGV[3]) end
destination_learn(d, now_ms, ARGV[3], '', 0, 0, 0)
destination_plan(d, now_ms, tonumber(ARGV[6]), tonumber(ARGV[7]))
return 1
