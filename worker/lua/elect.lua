-- Have one worker do what one is enough for, or give it up.
--
-- KEYS  1 the place of whoever does it
-- ARGV  1 the worker that asks  2 for how long (ms) it is to be its place, 0 to give it up
-- RETURNS  1 it is this worker's now, 0 another's, or given up
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]); return 0 end
redis.call('DEL', KEYS[1])  -- needs no memory, so that the rest is written however full Redis is
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
