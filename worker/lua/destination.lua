-- Included by scripts that send webhooks: when a destination's deliveries may be sent, how many at a time, and whether
-- it answers at all. Its keys are named here, since a script learns only as it runs which destinations are due:
--   {p}:wheel:deliver   destination -> when one of its deliveries may be taken next
--   {p}:waiting:ID      its deliveries that wait, by the time they are due
--   {p}:sending:ID      its deliveries that are being attempted, by the end of their leases
--   {p}:destination:ID  what it is and how it fares: name, host, failures in a row; while it fails: failing_since_ms,
--                       shut_until_ms (nothing is sent before), gap_ms, probe (the delivery that tries it), next_probe (that is to)
--   {p}:sending-to:HOST the deliveries being attempted at all destinations of a host, by when they are answered
--   {p}:queueing-at:HOST destinations that found no place left at their host, by since when: the next to be free is theirs
--   {p}:host:HOST       'trusted' since it last answered well, while it has not failed too often since; failures in a row
--   {p}:failing         destinations that fail and have something to send, by since when
-- A delivery is in exactly one of waiting and sending while it is pending. A destination that has failed OPENS_AT times
-- in a row is tried by one delivery at a time, at growing gaps; the others wait, at no attempt of theirs. A host that has
-- not answered well lately has a fifth of the places: where each job has a path of its own, only that bounds it.
local OPENS_AT, DISTRUSTED_AT, SHARE_OF_THE_UNKNOWN = 10, 20, 5
local KEPT_MS, LONGEST_SHUT_MS = 86400000, 3600000

-- most: how many at a time to a destination, and to a host
local function destination_read(prefix, id, now_ms, most, most_at_host)
  local d = {id = id, wheel = prefix .. ':wheel:deliver', waiting = prefix .. ':waiting:' .. id,
    sending = prefix .. ':sending:' .. id, state = prefix .. ':destination:' .. id, all_failing = prefix .. ':failing'}
  local found = redis.call('HMGET', d.state, 'host', 'failing_since_ms', 'shut_until_ms', 'gap_ms', 'probe')
  local host = found[1] or ''
  d.at_host, d.queueing, d.host = prefix .. ':sending-to:' .. host, prefix .. ':queueing-at:' .. host, prefix .. ':host:' .. host
  d.failing, d.since_ms = found[2] and true or false, tonumber(found[2] or '0') or 0
  d.shut_until_ms, d.gap_ms, d.probe = tonumber(found[3] or '0') or 0, tonumber(found[4] or '0') or 0, found[5]
  -- What lies further ahead than is ever planned is of a clock that has been set back since.
  if d.shut_until_ms > now_ms + LONGEST_SHUT_MS then d.shut_until_ms = now_ms end
  for _, key in ipairs({d.wheel, d.waiting, d.sending, d.at_host, d.queueing, d.all_failing}) do redis.call('ZCARD', key) end
  local part = redis.call('HEXISTS', d.host, 'trusted') == 1 and 1 or SHARE_OF_THE_UNKNOWN
  d.most, d.most_at_host = math.max(math.floor(most / part), 1), math.max(math.floor(most_at_host / part), 1)
  return d
end

-- How many of its deliveries may be sent now.
local function destination_room(d, now_ms)
  local sending = redis.call('ZCARD', d.sending)
  if d.failing then return (sending == 0 and d.shut_until_ms <= now_ms) and 1 or 0 end
  return math.max(math.min(d.most - sending, d.most_at_host - redis.call('ZCOUNT', d.at_host, '(' .. now_ms, '+inf')), 0)
end

-- Whether what has waited for longer than the schedule is to be given up: only when a try has just failed again.
local function destination_gives_up(d, now_ms)
  return d.failing and d.shut_until_ms > now_ms and redis.call('ZCARD', d.sending) == 0
end

-- Write down when one of its deliveries may be taken next, and return it; nothing where there is none.
local function destination_plan(d, now_ms, patience_ms)
  local first = tonumber(redis.call('ZRANGE', d.waiting, 0, 0, 'WITHSCORES')[2])
  local lease_ends = tonumber(redis.call('ZRANGE', d.sending, 0, 0, 'WITHSCORES')[2])
  local sending = redis.call('ZCARD', d.sending)
  if not first and not lease_ends then
    redis.call('ZREM', d.wheel, d.id)
    redis.call('ZREM', d.all_failing, d.id)
    if d.failing then redis.call('PEXPIRE', d.state, KEPT_MS) else redis.call('DEL', d.state) end
    return
  end
  local at_ms = lease_ends
  local function no_later(time_ms) if not at_ms or time_ms < at_ms then at_ms = time_ms end end
  if first and d.failing then
    redis.call('ZADD', d.all_failing, 'NX', d.since_ms, d.id)
    if sending == 0 then no_later(math.max(first, d.shut_until_ms)) end
    if destination_gives_up(d, now_ms) then no_later(first + patience_ms) end
  elseif first and sending < d.most then
    no_later(first)
  end
  at_ms = math.max(at_ms or now_ms + 1000, now_ms)
  redis.call('ZADD', d.wheel, at_ms, d.id)
  redis.call('PERSIST', d.state)
  return at_ms
end

-- Call destinations that queue for places at the host: so many are free.
local function destination_call_others(d, places)
  local called = redis.call('ZPOPMIN', d.queueing, places)
  for i = 1, #called, 2 do redis.call('ZADD', d.wheel, 'XX', 'LT', called[i + 1], called[i]) end
  d.has_called = d.has_called or #called > 0
end

-- Let a delivery go that was being attempted; its place is another's.
local function destination_done(d, delivery)
  redis.call('ZREM', d.sending, delivery)
  if redis.call('ZREM', d.at_host, delivery) == 1 then destination_call_others(d, 1) end
end

-- Learn from an attempt whether destination and host answer; return 'failing' or 'recovered' where the destination does so
-- from now on.
local function destination_learn(d, now_ms, delivery, how, first_gap_ms, longest_gap_ms, asked_ms)
  if how == 'well' then
    if redis.call('HSET', d.host, 'trusted', 1, 'failures', 0) > 0 then
      destination_call_others(d, SHARE_OF_THE_UNKNOWN * d.most_at_host)
    end
    redis.call('PEXPIRE', d.host, KEPT_MS)
    redis.call('HDEL', d.state, 'failures', 'failing_since_ms', 'shut_until_ms', 'gap_ms', 'probe', 'next_probe')
    redis.call('ZREM', d.all_failing, d.id)
    local was_failing = d.failing
    d.failing, d.shut_until_ms = false, 0
    return was_failing and 'recovered' or ''
  elseif how == 'ill' then
    redis.pcall('HINCRBY', d.host, 'failures', 1)
    redis.call('PEXPIRE', d.host, KEPT_MS)
    if (tonumber(redis.call('HGET', d.host, 'failures') or '') or DISTRUSTED_AT) >= DISTRUSTED_AT then
      redis.call('HDEL', d.host, 'trusted')
    end
    redis.pcall('HINCRBY', d.state, 'failures', 1)
    local failures = tonumber(redis.call('HGET', d.state, 'failures') or '') or OPENS_AT
    local gap_ms
    if not d.failing and failures >= OPENS_AT then
      gap_ms = first_gap_ms
    elseif d.failing and d.probe == delivery then
      gap_ms = math.min(math.max(d.gap_ms, 1) * 2, longest_gap_ms)
    end
    if gap_ms then
      local is_new = not d.failing
      if is_new then
        d.failing, d.since_ms = true, now_ms
        redis.call('HSET', d.state, 'failing_since_ms', now_ms)
      end
      d.shut_until_ms = now_ms + math.min(math.max(gap_ms, asked_ms), LONGEST_SHUT_MS)
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
