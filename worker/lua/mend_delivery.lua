-- Put a delivery back where its record says that it has to be.
--
-- KEYS  1 delivery  2 leases of deliveries  3 job record  4 deliveries of job  5 counters
--       (those of the destination: see destination)
-- ARGV  1 prefix of keys  2 destination  3 most at a time to it  4 most to its host
--       5 for how long (ms) a due delivery waits for a destination that fails
--       6 the destination's name  7 its host  8 delivery id  9 newest schema of records that is known  10 lease (ms)
-- RETURNS  what was repaired, once for each repair
-- INVARIANT  a pending delivery is in its destination's queue, or being sent; one that a worker holds stays with it. A
--            delivery of a newer version's job is left alone. On what is in order nothing is written.
-- include destination
local prefix, id = ARGV[1], ARGV[8]
local STATES = {'pending', 'delivered', 'dead'}
local state, seq, next_at_ms, url = unpack(redis.call('HMGET', KEYS[1], 'state', 'seq', 'next_at_ms', 'url'))
if not (state and seq and tonumber(seq) and url) then return {} end
local is_of_a_job = redis.call('EXISTS', KEYS[3]) == 1
if is_of_a_job and (tonumber(redis.call('HGET', KEYS[3], 'schema') or '0') or 0) > tonumber(ARGV[9]) then return {} end
local listed = redis.call('LPOS', KEYS[4], id)
local is_held = redis.call('HEXISTS', KEYS[2], id) == 1
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lease_ms = tonumber(ARGV[10])
local d = destination_read(prefix, ARGV[2], now_ms, tonumber(ARGV[3]), tonumber(ARGV[4]))
local writes, repaired = {}, {}
local function repair(what, ...)
  repaired[#repaired + 1] = what
  writes[#writes + 1] = {...}
end

local is_left = not is_of_a_job and state ~= 'pending'
for _, each in ipairs(STATES) do
  local index = prefix .. ':deliveries:' .. each
  local score = redis.call('ZSCORE', index, id)
  if is_left then
    writes[#writes + 1] = {'ZREM', index, id}
  elseif each == state and score ~= seq then
    repair('delivery_index', 'ZADD', index, seq, id)
  elseif each ~= state and score then
    repair('delivery_index', 'ZREM', index, id)
  end
end
if is_left then
  writes[#writes + 1] = {'LREM', KEYS[4], 0, id}
  repair('delivery_left', 'DEL', KEYS[1])
elseif is_of_a_job and not listed then
  repair('delivery_index', 'RPUSH', KEYS[4], id)
end
local is_nameless = false
if state == 'pending' then
  local sent_until_ms = tonumber(redis.call('ZSCORE', d.sending, id) or '')
  local is_waiting = redis.call('ZSCORE', d.waiting, id)
  is_nameless = redis.call('HEXISTS', d.state, 'name') == 0
  if is_nameless then repair('destination', 'HSET', d.state, 'name', ARGV[6], 'host', ARGV[7]) end
  if not sent_until_ms and not is_waiting then
    if is_held then
      repair('delivery', 'ZADD', d.sending, now_ms + lease_ms, id)
    else
      repair('delivery', 'ZADD', d.waiting, string.format('%.0f', math.max(tonumber(next_at_ms or '') or 0, now_ms)), id)
    end
  elseif sent_until_ms and sent_until_ms > now_ms + 2 * lease_ms then
    repair('lease', 'ZADD', d.sending, now_ms + lease_ms, id)
  end
end
if #repaired == 0 then return repaired end
redis.call('HDEL', KEYS[1], '')  -- needs no memory, so that the rest is written however full Redis is
for _, write in ipairs(writes) do redis.call(unpack(write)) end
if is_nameless then d = destination_read(prefix, ARGV[2], now_ms, tonumber(ARGV[3]), tonumber(ARGV[4])) end
if state == 'pending' then destination_plan(d, now_ms, tonumber(ARGV[5])) end
for _, what in ipairs(repaired) do redis.pcall('HINCRBY', KEYS[5], 'upkeep_repairs_total|' .. what, 1) end
return repaired
