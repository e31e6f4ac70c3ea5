-- Put the body of a call back on arq's queue, so that it is taken; and drop a lock that never ends.
--
-- KEYS  1 our queue  2 counters  3 body  4 lock  5... other queues there are
-- ARGV  1 id of the entry  2 'entry' to put it back, 'lock' to drop its lock
-- RETURNS  1 repaired, 0 nothing to repair, or none of ours
local queued = redis.call('ZSCORE', KEYS[1], ARGV[1])
local locked_ms = redis.call('PTTL', KEYS[4])  -- -1: for ever, -2: not at all
if ARGV[2] == 'lock' then
  if not queued or locked_ms ~= -1 then return 0 end
  redis.call('DEL', KEYS[4])
  redis.pcall('HINCRBY', KEYS[2], 'upkeep_repairs_total|arq_lock', 1)
  return 1
end
if queued or locked_ms ~= -2 or redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
for i = 5, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok == 'zset' and redis.call('ZSCORE', KEYS[i], ARGV[1]) then return 0 end
end
local clock = redis.call('TIME')
redis.call('ZREM', KEYS[1], '')  -- needs no memory, so that the rest is written however full Redis is
redis.call('ZADD', KEYS[1], clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[1])
redis.pcall('HINCRBY', KEYS[2], 'upkeep_repairs_total|arq_entry', 1)
return 1
