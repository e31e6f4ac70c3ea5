-- How many requests the gateway takes, learned from its refusals (429). Included by the scripts that begin and end them.
--
-- THEORY  A lane (submissions, look-ups) logs when its requests went out, for as long as the limit's window is said to be.
-- Nothing is limited before the first refusal. What is in the log then, without what is refused, is the limit from there
-- on: never more in any span of that length, so that it does not matter where the gateway's windows begin or whether
-- they slide. A refusal also shuts the lane for all workers: silence until the pause is over, then one request at a
-- time, until one passes. Where requests numbered after the refused one pass more often than are refused, it was not
-- about their number; and one submission refused after hardly any teaches nothing until another is met at about the same
-- number. Look-ups are only quieted, and not logged: a limit taken for one by mistake would keep paid results from their
-- jobs.
-- While the limit is used up and all is answered, one request more is tried, and another when that has passed, two at a
-- time in the end. That finds out a limit that was learned too low or has been raised, or a window that began anew, at
-- the cost of a refusal: the next is tried GROW_EVERY_MS later. A limit that is far exceeded was none.
-- Where the operator has set a budget, that is the limit, and none is learned: submissions are only quieted, too.
local PACE = {'sent', 'window_ms', 'limit', 'before', 'suspect', 'grown', 'granted', 'grow_at_ms',
  'shut', 'refused', 'first_refused', 'after', 'probe', 'probe_until_ms', 'pauses', 'pause_until_ms', 'budget'}
local STEADY, GROW_EVERY_MS, LEAST_TO_TEACH, LEAST_TO_FORGET = 8, 15000, 3, 60
local FIRST_PAUSE_MS, LONGEST_PAUSE_MS, LONGEST_WINDOW_MS, LONGEST_ANSWER_MS = 2000, 32000, 60000, 600000
local ANSWERS_LATER_MS = 250  -- how soon to ask again while answers are awaited
local MARGIN = 30             -- the part of a window that is added to it: requests take their time to arrive

-- Note what the operator has said of the lane, 0 where it is to be learned.
local function pace_budget(lane, per_minute)
  lane.budget, lane.learns = per_minute, per_minute == 0 and string.match(lane.state, '%a+$') ~= 'look'
  if per_minute > 0 then lane.limit, lane.before = 0, 0 end
end

-- Read a lane by its three keys: its state, its log, and what is awaited: requests, and until when. Rubbish is nothing.
local function pace_read(first_key, now_ms)
  local state, log, open = KEYS[first_key], KEYS[first_key + 1], KEYS[first_key + 2]
  local lane, found = {state = state, log = log, open = open}, redis.call('HMGET', state, unpack(PACE))
  for i, name in ipairs(PACE) do
    local value = tonumber(found[i] or '0') or 0
    lane[name] = value > 0 and value < 1e15 and math.floor(value) or 0
  end
  pace_budget(lane, lane.budget)
  local length_ms = lane.window_ms > 0 and lane.window_ms or LONGEST_WINDOW_MS
  lane.span_ms = length_ms + math.floor(length_ms / MARGIN)
  -- What lies further ahead than this script ever plans is of a clock that has been set back since.
  if lane.pause_until_ms > now_ms + LONGEST_WINDOW_MS then lane.pause_until_ms = 0 end
  if lane.probe_until_ms > now_ms + LONGEST_ANSWER_MS then lane.probe_until_ms = 0 end
  if lane.grow_at_ms > now_ms + GROW_EVERY_MS then lane.grow_at_ms = now_ms end
  redis.call('ZREMRANGEBYSCORE', log, '-inf', now_ms - lane.span_ms)
  redis.call('ZREMRANGEBYSCORE', log, now_ms + LONGEST_WINDOW_MS, '+inf')
  redis.call('ZREMRANGEBYSCORE', open, '-inf', now_ms)  -- whose answer never came, or was never told
  redis.call('ZREMRANGEBYSCORE', open, now_ms + LONGEST_ANSWER_MS, '+inf')
  return lane
end

local function pace_write(lane)
  local flat = {}
  for i, name in ipairs(PACE) do flat[2 * i - 1] = name; flat[2 * i] = string.format('%d', lane[name]) end
  redis.call('HSET', lane.state, unpack(flat))
end

-- Say how many requests may go out now, or 0 and when to ask again.
local function pace_room(lane, now_ms)
  if lane.pause_until_ms > now_ms then return 0, lane.pause_until_ms end
  if lane.shut > 0 then
    if lane.probe_until_ms > now_ms then return 0, math.min(lane.probe_until_ms, now_ms + ANSWERS_LATER_MS) end
    return 1
  end
  if lane.limit == 0 then return 1e9 end
  local logged = redis.call('ZCARD', lane.log)
  if logged < lane.limit then lane.granted = 0; return lane.limit - logged end
  if lane.granted > 0 then return lane.granted end
  if logged > math.max(3 * lane.limit, lane.limit + LEAST_TO_FORGET) then lane.limit, lane.grow_at_ms = 0, 0; return 1e9 end
  local answered = redis.call('ZCARD', lane.open) == 0
  if answered and now_ms >= lane.grow_at_ms then
    lane.granted = lane.grown < STEADY and 1 or 2
    lane.grown = lane.grown + lane.granted
    return lane.granted
  end
  local oldest = redis.call('ZRANGE', lane.log, 0, 0, 'WITHSCORES')
  local free_ms = oldest[2] and tonumber(oldest[2]) + lane.span_ms + 1 or now_ms
  return 0, math.max(math.min(free_ms, answered and lane.grow_at_ms or now_ms + ANSWERS_LATER_MS), now_ms + 1)
end

-- Log requests that go out now; return the number of the first. An answer is awaited until `answered_by_ms`.
local function pace_take(lane, now_ms, count, answered_by_ms)
  local first = lane.sent + 1
  for number = first, first + count - 1 do
    if lane.learns then redis.call('ZADD', lane.log, now_ms, number) end
    if lane.limit > 0 or lane.shut > 0 then redis.call('ZADD', lane.open, answered_by_ms, number) end
  end
  lane.sent, lane.granted = lane.sent + count, math.max(lane.granted - count, 0)
  if lane.shut > 0 then lane.probe, lane.probe_until_ms = lane.sent, answered_by_ms end
  return first
end

local function pace_refused(lane, now_ms, number, pause_ms, window_ms)
  redis.call('ZREM', lane.log, number)
  local passed = redis.call('ZCARD', lane.log)
  if lane.shut == 0 and lane.limit > 0 and passed >= lane.limit then  -- a growth that was one too many
    lane.grown, lane.granted, lane.grow_at_ms = 0, 0, now_ms + GROW_EVERY_MS
  else
    if lane.shut == 0 then
      lane.shut, lane.before, lane.refused, lane.first_refused, lane.after = 1, lane.limit, 0, number, 0
      lane.probe, lane.probe_until_ms, lane.pauses, lane.grown, lane.granted = 0, 0, 0, 0, 0
      if lane.limit == 0 then lane.window_ms = window_ms end
    end
    lane.refused, lane.first_refused = lane.refused + 1, math.min(lane.first_refused, number)
    if number == lane.probe then
      lane.pauses, lane.probe, lane.probe_until_ms = math.min(lane.pauses + 1, 10), 0, 0
    else
      lane.limit = math.max(lane.before > 0 and math.min(passed, lane.before) or passed, 1)
    end
  end
  -- The gateway's own word is taken once; where it proves too short, the pauses grow.
  local least_ms = math.min(FIRST_PAUSE_MS * 2 ^ lane.pauses, LONGEST_PAUSE_MS)
  if pause_ms > 0 and lane.pauses == 0 then least_ms = 0 end
  pause_ms = math.min(math.max(pause_ms, least_ms), LONGEST_WINDOW_MS)
  lane.pause_until_ms = math.max(lane.pause_until_ms, now_ms + pause_ms)
end

-- Learn what became of a request: 'passed' (whatever else it was answered), 'refused' (429) or 'lost' (no answer).
local function pace_heard(lane, now_ms, number, what, pause_ms, window_ms)
  redis.call('ZREM', lane.open, number)
  if what == 'refused' then
    pace_refused(lane, now_ms, number, pause_ms, window_ms)
  elseif lane.shut > 0 and number == lane.probe then
    lane.probe, lane.probe_until_ms = 0, 0
    if what == 'passed' then
      lane.shut, lane.pauses = 0, 0
      local is_seen_again = math.abs(lane.limit - lane.suspect) <= lane.suspect / 8
      lane.suspect = lane.limit
      local is_taught = lane.learns and (lane.refused > 1 or is_seen_again or lane.limit >= LEAST_TO_TEACH)
      if lane.after > lane.refused or not is_taught then lane.limit = lane.before end
    end
  elseif what == 'passed' and lane.shut > 0 and number > lane.first_refused then
    lane.after = lane.after + 1
  end
end

-- Tell a lane, and the cooldown of a submission's model, what became of a request. KEYS: the lane's three, then
-- `gate_key` and `cooldowns_key`, 0 where no model is told of.
local function pace_tell(first_key, gate_key, cooldowns_key, told)
  local clock = redis.call('TIME')
  local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local lane = pace_read(first_key, now_ms)
  pace_heard(lane, now_ms, tonumber(told.number), told.what, tonumber(told.pause_ms), tonumber(told.window_ms))
  pace_write(lane)
  if gate_key == 0 or told.model == '' then return end
  local until_ms = string.match(redis.call('HGET', KEYS[cooldowns_key], told.model) or '', '^%d+$')
  if until_ms and tonumber(until_ms) <= now_ms then
    redis.call('HDEL', KEYS[gate_key], 'probing:' .. told.model)
    if told.lifts == '1' then redis.call('HDEL', KEYS[cooldowns_key], told.model) end
  end
end
