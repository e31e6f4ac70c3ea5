-- Drop leases of members that are on no wheel, and pull back those that run for longer than any can, as after a clock was
-- set back: their members would not be due before.
--
-- KEYS  1 wheel  2 its leases  3 counters
-- ARGV  1 lease (ms)  2 what the key of a delivery begins with where these are deliveries, which have wheels of their own:
--          the lease of one that is not pending is dropped; else ''
--       then for each lease that was found: member, token
-- RETURNS  the members whose leases were repaired
-- INVARIANT  a lease that has passed to another since it was found is left alone.
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lease_ms = tonumber(ARGV[1])
local dropped, pulled, mended = {}, {}, {}
for i = 3, #ARGV, 2 do
  local member = ARGV[i]
  if redis.call('HGET', KEYS[2], member) == ARGV[i + 1] then
    local score
    if ARGV[2] ~= '' then
      local found = redis.pcall('HGET', ARGV[2] .. member, 'state')
      score = (found == 'pending' or type(found) == 'table') and now_ms or nil  -- what cannot be read is left alone
    else
      score = tonumber(redis.call('ZSCORE', KEYS[1], member) or '')
    end
    if not score then
      dropped[#dropped + 1], mended[#mended + 1] = member, member
    elseif score > now_ms + 2 * lease_ms then
      pulled[#pulled + 1], mended[#mended + 1] = member, member
    end
  end
end
if #mended > 0 then redis.call('HDEL', KEYS[2], '') end  -- needs no memory, so that the rest is written however full Redis is
for _, member in ipairs(dropped) do redis.call('HDEL', KEYS[2], member) end
for _, member in ipairs(pulled) do redis.call('ZADD', KEYS[1], 'XX', now_ms + lease_ms, member) end
if #mended > 0 then redis.pcall('HINCRBY', KEYS[3], 'upkeep_repairs_total|lease', #mended) end
return mended
