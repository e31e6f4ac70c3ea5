-- Put a job back where its record says that it has to be, unless it has moved on meanwhile.
--
-- KEYS  1 record  2 its submit wheel  3 leases of that  4 track wheel  5 its leases  6 deadlines  7 ended jobs
--       8 deliveries of job  9 counters  10 index of its status  11 index with its model  12 quarantine
-- ARGV  1 job id  2 rev  3 lease (ms)  4 how much later (ms) than said a job may be due on its submit wheel
--       5 when it is due there (ms), '' where it need not be on it
--       6 its deadline (ms) where it has not ended, else ''  7 when it ended (ms), else ''
--       8 what the key of a delivery begins with  9 what that of an index begins with  10 all statuses, between commas
--       11 all kinds, likewise  12 how many models it may have  13... those, and for each task that is watched its member
--       and when to look at it (ms)
-- RETURNS  what was repaired, once for each repair
-- INVARIANT  nothing is repaired by a record that is no longer the one that was judged, nor of a job in quarantine; a
--            member whose lease is held is left to its holder. On what is in order nothing is written.
local id, lease_ms = ARGV[1], tonumber(ARGV[3])
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[2] or redis.call('ZSCORE', KEYS[12], ARGV[1]) then return {} end
local seq = redis.call('HGET', KEYS[1], 'seq')
if not (seq and tonumber(seq)) then return {} end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local writes, repaired = {}, {}

local function repair(what, ...)
  repaired[#repaired + 1] = what
  writes[#writes + 1] = {...}
end

local function put_back(what, wheel, leases, member, due_ms)
  if redis.call('HEXISTS', leases, member) == 1 then due_ms = now_ms + lease_ms end
  repair(what, 'ZADD', wheel, string.format('%.0f', math.max(due_ms, now_ms)), member)
end

if ARGV[5] ~= '' then
  local due_ms, is_held = tonumber(redis.call('ZSCORE', KEYS[2], id) or ''), redis.call('HEXISTS', KEYS[3], id) == 1
  local latest_ms = math.max(tonumber(ARGV[5]), now_ms) + tonumber(ARGV[4])
  if not due_ms or (due_ms > latest_ms and not is_held) then
    put_back('submit_wheel', KEYS[2], KEYS[3], id, tonumber(ARGV[5]))
  end
end
local first_look = 13 + tonumber(ARGV[12])
for i = first_look, #ARGV, 2 do
  if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then
    put_back('track_wheel', KEYS[4], KEYS[5], ARGV[i], tonumber(ARGV[i + 1]))
  end
end
if ARGV[6] ~= '' and not redis.call('ZSCORE', KEYS[6], id) then repair('deadline', 'ZADD', KEYS[6], ARGV[6], id) end
local ended_ms = redis.call('ZSCORE', KEYS[7], id)
if ARGV[7] ~= '' and not ended_ms then repair('ended', 'ZADD', KEYS[7], ARGV[7], id) end
if ARGV[7] == '' and ended_ms then repair('ended', 'ZREM', KEYS[7], id) end
if seq then
  for i = 10, 11 do
    if redis.call('ZSCORE', KEYS[i], id) ~= seq then repair('index', 'ZADD', KEYS[i], seq, id) end
  end
  local function leave(index)
    if index ~= KEYS[10] and index ~= KEYS[11] and redis.call('ZSCORE', index, id) then
      repair('index', 'ZREM', index, id)
    end
  end
  for status in string.gmatch(ARGV[10], '[^,]+') do
    for kind in string.gmatch(ARGV[11], '[^,]+') do
      local index = ARGV[9] .. status .. ':' .. kind
      leave(index)
      for i = 13, first_look - 1 do leave(index .. ':' .. ARGV[i]) end
    end
  end
end
local pending = 0
for _, delivery in ipairs(redis.call('LRANGE', KEYS[8], 0, -1)) do
  if redis.call('HGET', ARGV[8] .. delivery, 'state') == 'pending' then pending = pending + 1 end
end
local noted = redis.call('HGET', KEYS[1], 'pending')
if tonumber(noted or '0') ~= pending then repair('pending', 'HSET', KEYS[1], 'pending', pending) end

if #writes > 0 then redis.call('HDEL', KEYS[1], '') end  -- needs no memory, so that the rest is written however full Redis is
for _, write in ipairs(writes) do redis.call(unpack(write)) end
for _, what in ipairs(repaired) do redis.pcall('HINCRBY', KEYS[9], 'upkeep_repairs_total|' .. what, 1) end
return repaired
