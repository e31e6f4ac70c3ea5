-- Count in a record that what was done under a claim of it went wrong, again.
--
-- KEYS  1 leases  2 record
-- ARGV  1 member  2 token  3 field  4 the most to count to  5 the newest schema that is known
-- RETURNS  how often in a row by now; -1 where there is no record to count in, or a newer version's; -2 where the claim was
--          another's
-- INVARIANT  the record's rev stays: nothing that is computed from it is overtaken by this.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -2 end
if redis.call('TYPE', KEYS[2]).ok ~= 'hash' then return -1 end
if (tonumber(redis.call('HGET', KEYS[2], 'schema') or '0') or 0) > tonumber(ARGV[5]) then return -1 end
local times = tonumber(string.match(redis.call('HGET', KEYS[2], ARGV[3]) or '0', '^%d%d?%d?$') or '0')
if times >= tonumber(ARGV[4]) then return times end
redis.call('HDEL', KEYS[2], '')  -- needs no memory, so that the rest is written however full Redis is
redis.call('HSET', KEYS[2], ARGV[3], times + 1)
return times + 1
