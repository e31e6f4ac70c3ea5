-- Claim what is due on one or several wheels, each claim under the caller's token for one lease period.
--
-- KEYS  1 gate  2 cooldowns  3 pace of the lane  4 its log  5 what it awaits  then for each wheel: it, its leases
-- ARGV  1 token  2 most to claim  3 lease (ms)  4 '1' when the caller has just found Redis back: nobody in the fleet
--          takes a lease over before one lease period has passed
--       5 the lane that paces the work: 'submit' (where pauses, holds and the budget apply, too), 'look', or ''
--       6 requests a minute, 0 for no budget  7 when a request of now is answered at the latest: one lease from the
--          caller's now  8... a name for each wheel
-- RETURNS  {now (ms), time of the next due member or '', '1' while submissions are held or '0', cooldowns as a flat
--           list, number of the first look-up in its lane, '1' where its lane is limited or '0',
--           {wheel's position from 1, member, the token whose lease had run out or ''}...}
-- INVARIANT  the score of a claimed member is the end of its lease, so that a lease that runs out is due by itself.
-- include pace
local LATE_MS, HEEDED_AGAIN_MS, FULL_AGAIN_MS = 2000, 60000, 1000
local token, limit, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lane_name, per_minute = ARGV[5], tonumber(ARGV[6])
local gated = lane_name == 'submit'
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local wheels = (#KEYS - 5) / 2
local next_due, held, spent = nil, '0', 0
local gate = {}
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do gate[found[i]] = found[i + 1] end

local function number(name) return tonumber(gate[name] or '0') or 0 end  -- rubbish counts as nothing

for i = 2, #KEYS do  -- all that could fail on a wrong type, before the first write
  redis.call((i <= 3 or (i > 5 and i % 2 == 1)) and 'HLEN' or 'ZCARD', KEYS[i])
end
-- At maxmemory no submission begins; the other wheels go on, since their first write needs no memory (see apply).
if not gated then
  redis.call('HDEL', KEYS[1], '')
else
  local writable = redis.pcall('HSETNX', KEYS[1], 'takeover_from_ms', 0)
  if type(writable) == 'table' and writable.err then
    if not string.find(writable.err, 'OOM', 1, true) then return writable end
    return {now_ms, string.format('%d', now_ms + FULL_AGAIN_MS), gate.hold and '1' or '0', {}, 0, '0'}
  end
end

-- A call that comes late has waited for Redis, or the clock was set: nobody could renew, and its caller may be gone.
-- Heeded for the fleet once in a while only: it may be the caller that is slow.
local is_late = now_ms - (tonumber(ARGV[7]) - lease_ms) > LATE_MS
local takeover_from_ms = number('takeover_from_ms')
if takeover_from_ms > now_ms + lease_ms then  -- of a clock that has been set back since
  takeover_from_ms = now_ms + lease_ms
  redis.call('HSET', KEYS[1], 'takeover_from_ms', takeover_from_ms)
end
if ARGV[4] == '1' or (is_late and now_ms - takeover_from_ms > HEEDED_AGAIN_MS) then
  takeover_from_ms = math.max(takeover_from_ms, now_ms + lease_ms)
  redis.call('HSET', KEYS[1], 'takeover_from_ms', takeover_from_ms)
end
if is_late then limit = 0 end

local function due_later(at_ms) if not next_due or at_ms < next_due then next_due = at_ms end end

local lane
if lane_name ~= '' then
  lane = pace_read(3, now_ms)
  if gated then pace_budget(lane, per_minute) end
  local room, again_ms = pace_room(lane, now_ms)
  limit = math.min(limit, room)
  if room == 0 then due_later(again_ms) end
end
if gated then
  if gate.hold then
    held = '1'
    local probe_at_ms = number('probe_at_ms')
    if probe_at_ms > now_ms then limit = 0; due_later(probe_at_ms) else limit = math.min(limit, 1) end
  end
  if per_minute > 0 and limit > 0 then
    -- A leaky bucket of five seconds' worth: booked_ms is the time up to which the budget is spent.
    local gap_ms = 60000 / per_minute
    local booked_ms = math.max(number('booked_ms'), now_ms)
    local free = math.floor((math.max(5000, gap_ms) - (booked_ms - now_ms)) / gap_ms)
    if free < limit then limit = math.max(free, 0) end
    if limit == 0 then due_later(math.ceil(now_ms + gap_ms)) end
    gate.booked_ms = booked_ms
  end
end

local claims = {}
local function claim_from(wheel, most)
  local key, leases = KEYS[4 + 2 * wheel], KEYS[5 + 2 * wheel]
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', now_ms, 'LIMIT', 0, most)
  for _, member in ipairs(members) do
    local holder = redis.call('HGET', leases, member)
    if holder and now_ms < takeover_from_ms then
      redis.call('ZADD', key, takeover_from_ms, member)
    else
      redis.call('HSET', leases, member, token)
      redis.call('ZADD', key, now_ms + lease_ms, member)
      claims[#claims + 1] = {wheel, member, holder or ''}
      spent = spent + 1
    end
  end
end

-- First a fair share of each wheel, then whoever has more; each time from another on, since there may be room for one.
for round = 1, 2 do
  for turn = 1, wheels do
    local wheel = (turn + tonumber(clock[2])) % wheels + 1
    local paused = gated and gate['paused:' .. ARGV[7 + wheel]]
    local left = limit - spent
    if left > 0 and not paused then
      claim_from(wheel, round == 1 and math.min(left, math.ceil(limit / wheels)) or left)
    end
  end
  if wheels == 1 then break end
end

if spent > 0 and gated then
  if per_minute > 0 then redis.call('HSET', KEYS[1], 'booked_ms', math.floor(gate.booked_ms + spent * 60000 / per_minute)) end
  if gate.hold then
    redis.call('HSET', KEYS[1], 'probe_at_ms', now_ms + math.max(number('probe_gap_ms'), 5000))
  end
end
local first_number, limited = 0, '0'
if lane_name == 'look' then  -- a submission is numbered when it begins, a look-up follows at once
  if spent > 0 then first_number = pace_take(lane, now_ms, spent, tonumber(ARGV[7])) end
  if lane.limit > 0 or lane.shut > 0 then limited = '1' end
end
if lane then pace_write(lane) end
if limit > 0 then
  for wheel = 1, wheels do
    if not (gated and gate['paused:' .. ARGV[7 + wheel]]) then
      local first = redis.call('ZRANGE', KEYS[4 + 2 * wheel], 0, 0, 'WITHSCORES')
      if first[2] then due_later(tonumber(first[2])) end
    end
  end
end
local answer = {now_ms, next_due and string.format('%d', next_due) or '', held, redis.call('HGETALL', KEYS[2]), first_number,
  limited}
for _, claim in ipairs(claims) do answer[#answer + 1] = claim end
return answer
