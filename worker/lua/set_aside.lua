-- Move aside what lies in a key and is not of its type, for a while; what was moved aside before stays.
--
-- KEYS  1 the key
-- ARGV  1 the type it has to be of  2 the name it gets, with a number behind it where that is taken  3 how long that is
--       kept (ms)
-- RETURNS  {type, name} of what was moved, {} where the key is of its type, or gone
-- INVARIANT  what is judged is what is moved: what others have made good meanwhile stays where it is.
local MOST = 100  -- what comes then takes the last one's place
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' or kind == ARGV[1] then return {} end
local name = ARGV[2]
for number = 2, MOST do
  if redis.call('EXISTS', name) == 0 then break end
  name = ARGV[2] .. ':' .. number
end
redis.call('RENAME', KEYS[1], name)
redis.call('PEXPIRE', name, ARGV[3])
return {kind, name}
