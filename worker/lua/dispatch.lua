-- Claim deliveries that are due, each under the caller's token for one lease period: a fair share of each destination's.
--
-- KEYS  1 gate  2 leases of deliveries  (those of the destinations: see destination)
-- ARGV  1 prefix of keys  2 token  3 most to claim  4 lease (ms)  5 '1' when the caller has just found Redis back: nobody
--          in the fleet takes a lease over before one lease period has passed
--       6 most at a time to a destination  7 most to a host  8 when an attempt of now is answered at the latest
--       9 for how long (ms) a due delivery waits for a destination that fails  10 the caller's now (ms)
-- RETURNS  {now (ms), time at which there is more or '', {destination, delivery, the token whose lease had run out
--           or '', '1' if it has waited for too long}...}
-- INVARIANT  a delivery that is claimed is in 'sending' until the end of its lease, and taken over from there.
-- include destination
local prefix, token, limit, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local patience_ms = tonumber(ARGV[9])
local LATE_MS, HEEDED_AGAIN_MS = 2000, 60000
local AT_A_TIME, HOST_AGAIN_MS, HOST_AGAIN_AT_MOST_MS = 200, 50, 60000
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local wheel = prefix .. ':wheel:deliver'
redis.call('HDEL', KEYS[2], '')  -- needs no memory, so that the rest is written however full Redis is

local is_late = now_ms - tonumber(ARGV[10]) > LATE_MS  -- see claim
local takeover_from_ms = tonumber(redis.call('HGET', KEYS[1], 'takeover_from_ms') or '0') or 0
if takeover_from_ms > now_ms + lease_ms then  -- of a clock that has been set back since
  takeover_from_ms = now_ms + lease_ms
  redis.call('HSET', KEYS[1], 'takeover_from_ms', takeover_from_ms)
end
if ARGV[5] == '1' or (is_late and now_ms - takeover_from_ms > HEEDED_AGAIN_MS) then
  takeover_from_ms = math.max(takeover_from_ms, now_ms + lease_ms)
  redis.call('HSET', KEYS[1], 'takeover_from_ms', takeover_from_ms)
end

if is_late then limit = 0 end
local claims, due, left, for_all = {}, {}, limit, limit
local function take(d, delivery, former, is_overdue)
  redis.call('ZREM', d.waiting, delivery)
  redis.call('ZADD', d.sending, now_ms + lease_ms, delivery)
  redis.call('ZADD', d.at_host, ARGV[8], delivery)
  redis.call('HSET', KEYS[2], delivery, token)
  d.has_had_its_turn = true
  claims[#claims + 1] = {d.id, delivery, former, is_overdue}
  left = left - 1
end

local function take_over(d)
  for _, delivery in ipairs(redis.call('ZRANGEBYSCORE', d.sending, '-inf', now_ms, 'LIMIT', 0, left)) do
    if now_ms < takeover_from_ms then
      redis.call('ZADD', d.sending, takeover_from_ms, delivery)
    else
      take(d, delivery, redis.call('HGET', KEYS[2], delivery) or '', '0')
    end
  end
end

-- In the first round each has its share of what may be claimed and of its host's room; in the second, what is left.
local function take_waiting(d, round)
  local room = destination_room(d, now_ms)
  local share = round == 1 and math.ceil(math.min(for_all, room) / #due) or left
  local taken = redis.call('ZRANGEBYSCORE', d.waiting, '-inf', now_ms, 'LIMIT', 0, math.min(room, share, left))
  if d.failing and #taken > 0 then
    local asked_for = redis.call('HGET', d.state, 'next_probe')
    if asked_for and redis.call('ZSCORE', d.waiting, asked_for) then taken = {asked_for} end
    redis.call('HDEL', d.state, 'next_probe')
    redis.call('HSET', d.state, 'probe', taken[1])
  end
  for _, delivery in ipairs(taken) do take(d, delivery, '', '0') end
  if #taken > 0 then redis.call('ZREM', d.queueing, d.id) end
  d.is_host_full = room == 0 and not d.failing and redis.call('ZCARD', d.sending) < d.most
end

local found = redis.call('ZRANGEBYSCORE', wheel, '-inf', now_ms, 'WITHSCORES', 'LIMIT', 0, AT_A_TIME)
for i = 1, #found, 2 do
  local id, since_ms = found[i], found[i + 1]
  local fine, d = pcall(destination_read, prefix, id, now_ms, tonumber(ARGV[6]), tonumber(ARGV[7]))
  if fine and left > 0 then
    d.due_since_ms = since_ms
    due[#due + 1] = d
    redis.call('ZREMRANGEBYSCORE', d.at_host, '-inf', now_ms - lease_ms)
    redis.call('ZREMRANGEBYSCORE', d.at_host, ARGV[8] + 60000, '+inf')  -- of a clock that has been set back
    take_over(d)
  elseif not fine then  -- something foreign lies in its place: the others' turn comes all the same
    redis.call('ZADD', wheel, now_ms + 60000, id)
  end
end
for_all = left
for round = 1, 2 do
  for _, d in ipairs(due) do
    if left > 0 then take_waiting(d, round) end
  end
end
for _, d in ipairs(due) do
  if left > 0 and destination_gives_up(d, now_ms) then
    local before_ms = now_ms - patience_ms
    for _, delivery in ipairs(redis.call('ZRANGEBYSCORE', d.waiting, '-inf', before_ms, 'LIMIT', 0, left)) do
      take(d, delivery, '', '1')
    end
  end
  local at_ms = destination_plan(d, now_ms, patience_ms)
  if at_ms and at_ms <= now_ms and d.is_host_full then  -- called when a place is free; looks by itself now and then
    -- One whose turn it was, and who came too late, keeps its place in the queue.
    redis.call('ZADD', d.queueing, 'NX', d.has_had_its_turn and now_ms or d.due_since_ms, d.id)
    redis.call('PEXPIRE', d.queueing, KEPT_MS)
    local again_ms = HOST_AGAIN_MS * math.max(redis.call('ZCARD', d.queueing), 10)
    redis.call('ZADD', wheel, now_ms + math.min(again_ms, HOST_AGAIN_AT_MOST_MS), d.id)
  elseif at_ms and at_ms <= now_ms and d.has_had_its_turn then  -- after those that have not
    redis.call('ZADD', wheel, now_ms + 1, d.id)
  end
end

local first = redis.call('ZRANGE', wheel, 0, 0, 'WITHSCORES')
local answer = {now_ms, first[2] and string.format('%d', first[2]) or ''}
for _, claim in ipairs(claims) do answer[#answer + 1] = claim end
return answer
