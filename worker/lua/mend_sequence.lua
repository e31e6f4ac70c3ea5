-- Have the sequence go on above all that was numbered with it, where it is lost, no number, or begun anew.
--
-- KEYS  1 sequence  2 events  3... indexes
-- RETURNS  what it goes on from, 0 where it is in order
-- include sequence
local stored = string.match(redis.call('GET', KEYS[1]) or '0', '^%d+$')
local is_number = stored and #stored <= #SEQUENCE_MOST
local indexes = {}
for i = 3, #KEYS do indexes[#indexes + 1] = KEYS[i] end
local top = sequence_top(KEYS[2], indexes)
if is_number and tonumber(stored) >= top then return 0 end
redis.call('ZREM', KEYS[3], '')  -- needs no memory, so that the rest is written however full Redis is
redis.call('SET', KEYS[1], string.format('%.0f', top + SEQUENCE_GAP))
return top + SEQUENCE_GAP
