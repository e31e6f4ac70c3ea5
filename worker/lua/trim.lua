-- Drop the events before an entry, having noted the last of them: a reader whose cursor is older is told so.
--
-- KEYS  1 events  2 gate
-- ARGV  1 the first entry that is kept
-- RETURNS  how many went
redis.call('XLEN', KEYS[1])
redis.call('HDEL', KEYS[2], '')  -- needs no memory, so that the rest is written however full Redis is
local last = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[1], '-', 'COUNT', 1)[1]
if not last then return 0 end
redis.call('HSET', KEYS[2], 'events_trimmed', last[1])
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
