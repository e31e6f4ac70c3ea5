-- Included by scripts that send webhooks: when a destination's deliveries may be sent, how many at a time, and whether
-- it answers at all. Its keys are named here, since a script learns only as it runs which destinations are due:
--   {p}:wheel:deliver   destination -> when one of its deliveries may be taken next
--   {p}:waiting:ID      its deliveries that wait, by the time they are due
--   {p}:sending:ID      its deliveries that are being attempted, by the end of their leases
--   {p}:destination:ID  what it is and how it fares: name, host, failures in a row; while it fails: failing_since_ms,
--                       shut_until_ms (nothing is sent before), gap_ms, probe (the delivery that tries it)
--   {p}:sending-to:HOST the deliveries being attempted at all destinations of a host, by when they are answered
--   {p}:queueing-at:HOST destinations that found no place left at their host, by since when: the next to be free is theirs
-- A delivery is in exactly one of waiting and sending while it is pending. A destination that has failed OPENS_AT times
-- in a row is tried by one delivery at a time, at growing gaps; the others wait, at no attempt of theirs.
local OPENS_AT, KEPT_MS = 10, 86400000

local function destination_read(prefix, id)
  local d = {id = id, wheel = prefix .. ':wheel:deliver', waiting = prefix .. ':waiting:' .. id,
    sending = prefix .. ':sending:' .. id, state = prefix .. ':destination:' .. id}
  local found = redis.call('HMGET', d.state, 'host', 'failing_since_ms', 'shut_until_ms', 'gap_ms', 'probe')
  d.at_host = prefix .. ':sending-to:' .. (found[1] or '')
  d.queueing = prefix .. ':queueing-at:' .. (found[1] or '')
  d.failing = found[2] and true or false
  d.shut_until_ms, d.gap_ms, d.probe = tonumber(found[3] or '0') or 0, tonumber(found[4] or '0') or 0, found[5]
  for _, key in ipairs({d.wheel, d.waiting, d.sending, d.at_host, d.queueing}) do redis.call('ZCARD', key) end
  return d
end

-- How many of its deliveries may be sent now.
local function destination_room(d, now_ms, most, most_at_host)
  local sending = redis.call('ZCARD', d.sending)
  if d.failing then return (sending == 0 and d.shut_until_ms <= now_ms) and 1 or 0 end
  return math.max(math.min(most - sending, most_at_host - redis.call('ZCOUNT', d.at_host, '(' .. now_ms, '+inf')), 0)
end

-- Write down when one of its deliveries may be taken next, and return it; nothing where there is none.
local function destination_plan(d, now_ms, most, patience_ms)
  local first = tonumber(redis.call('ZRANGE', d.waiting, 0, 0, 'WITHSCORES')[2])
  local lease_ends = tonumber(redis.call('ZRANGE', d.sending, 0, 0, 'WITHSCORES')[2])
  local sending = redis.call('ZCARD', d.sending)
  if not first and not lease_ends then
    redis.call('ZREM', d.wheel, d.id)
    if d.failing then redis.call('PEXPIRE', d.state, KEPT_MS) else redis.call('DEL', d.state) end
    return
  end
  local at_ms = lease_ends
  local function no_later(time_ms) if not at_ms or time_ms < at_ms then at_ms = time_ms end end
  if first and d.failing then
    if sending == 0 then no_later(math.max(first, d.shut_until_ms)) end
    no_later(first + patience_ms)
  elseif first and sending < most then
    no_later(first)
  end
  at_ms = math.max(at_ms or now_ms + 1000, now_ms)
  redis.call('ZADD', d.wheel, at_ms, d.id)
  redis.call('PERSIST', d.state)
  return at_ms
end

-- Let a delivery go that was being attempted; return whether its place goes to a destination that queues for one.
local function destination_done(d, delivery)
  redis.call('ZREM', d.sending, delivery)
  if redis.call('ZREM', d.at_host, delivery) == 0 then return false end
  local first = redis.call('ZPOPMIN', d.queueing)
  if first[1] then redis.call('ZADD', d.wheel, 'XX', 'LT', first[2], first[1]) end
  return first[1] ~= nil
end

-- Learn from an attempt whether the destination answers; return 'failing' or 'recovered' where that has changed.
local function destination_learn(d, now_ms, delivery, how, first_gap_ms, longest_gap_ms, asked_ms)
  if how == 'well' then
    redis.call('HDEL', d.state, 'failures', 'failing_since_ms', 'shut_until_ms', 'gap_ms', 'probe')
    local was_failing = d.failing
    d.failing, d.shut_until_ms = false, 0
    return was_failing and 'recovered' or ''
  elseif how == 'ill' then
    redis.pcall('HINCRBY', d.state, 'failures', 1)
    local failures = tonumber(redis.call('HGET', d.state, 'failures') or '') or OPENS_AT
    local gap_ms
    if not d.failing and failures >= OPENS_AT then
      gap_ms = first_gap_ms
      redis.call('HSET', d.state, 'failing_since_ms', now_ms)
    elseif d.failing and d.probe == delivery then
      gap_ms = math.min(math.max(d.gap_ms, 1) * 2, longest_gap_ms)
    end
    if gap_ms then
      local is_new = not d.failing
      d.failing, d.shut_until_ms = true, now_ms + math.max(gap_ms, asked_ms)
      redis.call('HSET', d.state, 'shut_until_ms', d.shut_until_ms, 'gap_ms', gap_ms)
      redis.call('HDEL', d.state, 'probe')
      return is_new and 'failing' or ''
    end
  elseif d.failing and d.probe == delivery then  -- it was not tried after all
    d.shut_until_ms = now_ms
    redis.call('HSET', d.state, 'shut_until_ms', now_ms)
  end
  return ''
end
