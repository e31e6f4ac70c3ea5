-- Answer a caller, who has a while to fetch it.
--
-- KEYS  1 its list
-- ARGV  1 answer  2 for how long (ms) it is kept
-- RETURNS  how many entries there are then: more than one where the caller has left its mark
redis.call('LREM', KEYS[1], 0, '')  -- needs no memory, so that the rest is written however full Redis is
local entries = redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return entries
