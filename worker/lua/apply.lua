-- Write one step of a job: its record, the wheels, the index, counters, events, deliveries and what the fleet learns.
--
-- KEYS  1 job record         2 input              3 timeline            4 submit wheel      5 its leases
--       6 track wheel        7 its leases         8 deliver wheel       9 index before     10 index after
--      11 counters          12 events            13 pending deliveries 14 sequence         15 ended jobs
--      16 gate              17 cooldowns         18 deliveries of job
--      19 index before with the model   20 index after with the model   21 models' health   22 deadlines
--      23 pace of the lane              24 its log            25 what it awaits
--      26 the destination of webhooks   27 its deliveries that wait
--      28... one record for each new delivery, in the order of the events that have one
-- ARGV  in the order of the take() calls below; a list is preceded by its length
-- RETURNS  {'ok', seq, number, hold}  written; the number of the submission that begins, else 0; 'held' or 'resumed' where
--                                the fleet's submissions have been stopped or started by it, else ''
--          {'again', seq}        this very write (same new rev) had been done before
--          {'exists', record...} a new job whose id is taken: the record found, as HGETALL gives it
--          {'stale', why}        the record has moved on ('rev'), is gone ('gone') or the claim is another's ('lease')
--          {'wait', until}       a submission that is not to begin now: held, paused, its model is cooling, or paced
-- INVARIANT  all checks and every read that could fail on a wrong type come before the first write, so that the step
--            is written whole or not at all.
-- MEMORY  A Redis at its maxmemory refuses a script whose first write needs memory, and lets any other do all of its
--         writes. So a new job and the beginning of a submission are refused, and every other step of a job that is
--         there is written: what has been paid for can end, and be pruned.
-- include pace
-- include sequence
local at = 0
local function take() at = at + 1; return ARGV[at] end
local function take_list(width)
  local list = {}
  for i = 1, tonumber(take()) do
    local row = {}
    for j = 1, width do row[j] = take() end
    list[i] = row
  end
  return list
end

local job_id, expected_rev, new_rev, now_ms = take(), take(), take(), take()
local origins = ',' .. take() .. ','
local lease_key, lease_member, lease_token = tonumber(take()), take(), take()
local submit = take()               -- 'keep', 'remove' or the due time
local fields = take_list(2)         -- record fields to set
local dropped = take_list(1)        -- record fields to delete
local looks = take_list(2)          -- track wheel: member, due time or ''
local counters = take_list(2)       -- counter, by how much
local events = take_list(4)         -- event id, type, body, delivery id or ''
local delivery_url, delivery_due_ms = take(), take()
local destination, destination_name, destination_host = take(), take(), take()
local note = take()
local deadline_ms = take()          -- of a job that has not ended
local ended = take()                -- '1' when the job has ended with this step, '0' when it is open again, '' neither
local input = take()                -- a new job's input, '' otherwise
local hold, release_hold = take(), take()
local begins, answered_by_ms, is_hold_probe = take(), take(), take()  -- the model a submission begins to, '' for none
local heard, heard_model, lifts = take(), take(), take()  -- what became of a submission: see pace
local heard_number, heard_pause_ms, heard_window_ms = take(), take(), take()
local cool_model, cool_until_ms = take(), take()
local health_model, is_well = take(), take()  -- '' for no news of a model
local changed_channel = take()      -- where to announce the job's change
local channel = take()              -- where to announce work that is due now, '' for nowhere
local schema = take()               -- of the deliveries that are made

-- checks
local found_rev = redis.call('HGET', KEYS[1], 'rev')
if expected_rev == '' then
  if found_rev then
    if found_rev == new_rev then return {'again', redis.call('HGET', KEYS[1], 'seq')} end
    local record = redis.call('HGETALL', KEYS[1])
    table.insert(record, 1, 'exists')
    return record
  end
else
  if not found_rev then return {'stale', 'gone'} end
  if found_rev == new_rev then return {'again', redis.call('HGET', KEYS[1], 'seq')} end
  if found_rev ~= expected_rev then return {'stale', 'rev'} end
  if origins ~= ',,' then
    local status = redis.call('HGET', KEYS[1], 'status')
    if not string.find(origins, ',' .. status .. ',', 1, true) then return {'stale', 'rev'} end
  end
  if lease_token ~= '' and redis.call('HGET', KEYS[lease_key], lease_member) ~= lease_token then
    return {'stale', 'lease'}
  end
end
for i, kind in ipairs({'ZSCORE', 'HEXISTS', 'ZSCORE', 'HEXISTS', 'ZSCORE', 'ZSCORE', 'ZSCORE', 'HEXISTS'}) do
  redis.call(kind, KEYS[3 + i], '')
end
redis.call('XLEN', KEYS[12]); redis.call('ZCARD', KEYS[13]); redis.call('LLEN', KEYS[18])
redis.call('LLEN', KEYS[3]); redis.call('ZCARD', KEYS[15])
redis.call('HLEN', KEYS[16]); redis.call('HLEN', KEYS[17]); redis.call('HLEN', KEYS[21])
for _, i in ipairs({19, 20, 22}) do redis.call('ZCARD', KEYS[i]) end
redis.call('HLEN', KEYS[23]); redis.call('ZCARD', KEYS[24]); redis.call('ZCARD', KEYS[25])
redis.call('HLEN', KEYS[26]); redis.call('ZCARD', KEYS[27])
for i = 28, #KEYS do redis.call('HLEN', KEYS[i]) end
local gone_url = redis.call('HGET', KEYS[1], 'gone_url')
local pending = tonumber(redis.call('HGET', KEYS[1], 'pending') or '0') or 0
local seq = string.match(redis.call('HGET', KEYS[1], 'seq') or '', '^%d+$')
local is_listed_anew = not seq or #seq > 15
local clock_ms, clock_us, lane, probes_model = 0, 0, nil, false
if begins ~= '' then
  local clock = redis.call('TIME')
  clock_us = tonumber(clock[2])
  clock_ms = clock[1] * 1000 + math.floor(clock_us / 1000)
end
if begins ~= '' then
  redis.call('SETRANGE', KEYS[14], 0, '')  -- changes nothing, and is refused at maxmemory
  -- The claim saw the fleet as it was a moment ago: what has been learned since holds for this submission, too.
  local function number(name) return tonumber(redis.call('HGET', KEYS[16], name) or '0') or 0 end
  if redis.call('HEXISTS', KEYS[16], 'hold') == 1 and is_hold_probe ~= '1' then
    return {'wait', string.format('%d', math.max(number('probe_at_ms'), clock_ms + 1000))}
  end
  local cool_ms = tonumber(string.match(redis.call('HGET', KEYS[17], begins) or '', '^%d+$') or '0')
  if cool_ms > clock_ms then return {'wait', string.format('%d', clock_ms)} end
  if cool_ms > 0 then  -- over: one submission finds out whether the limit was reset
    probes_model = true
    if number('probing:' .. begins) > clock_ms then  -- scattered, since they may be many
      return {'wait', string.format('%d', clock_ms + 2000 + clock_us % 2000)}
    end
  end
  lane = pace_read(23, clock_ms)
  local room, again_ms = pace_room(lane, clock_ms)
  if room < 1 then return {'wait', string.format('%d', again_ms)} end
end
local top = 0
if redis.call('EXISTS', KEYS[14]) == 0 then  -- lost, or not begun
  top = sequence_top(KEYS[12], {KEYS[9], KEYS[10], KEYS[13], KEYS[19], KEYS[20]})
  if top > 0 then top = top + SEQUENCE_GAP end
end
if expected_rev ~= '' then redis.call('ZREM', KEYS[9], '') end  -- needs no memory
-- As many numbers as the step can need, in one go; those it does not use are skipped.
local last_sequence = redis.call('INCRBY', KEYS[14], string.format('%.0f', top + 1 + 2 * #events))
local sequence = last_sequence - 1 - 2 * #events
local function next_sequence() sequence = sequence + 1; return sequence end
if is_listed_anew then seq = next_sequence() end

-- writes
local flat = {'rev', new_rev}
for _, pair in ipairs(fields) do flat[#flat + 1] = pair[1]; flat[#flat + 1] = pair[2] end
if is_listed_anew then flat[#flat + 1] = 'seq'; flat[#flat + 1] = seq end
redis.call('HSET', KEYS[1], unpack(flat))
redis.call('HDEL', KEYS[1], 'crashes', 'deaths')
for _, name in ipairs(dropped) do redis.call('HDEL', KEYS[1], name[1]) end
if input ~= '' then redis.call('SET', KEYS[2], input) end
for before = 9, 19, 10 do
  local after = before + 1
  if KEYS[before] ~= KEYS[after] then redis.call('ZREM', KEYS[before], job_id) end
  if KEYS[before] ~= KEYS[after] or is_listed_anew then redis.call('ZADD', KEYS[after], seq, job_id) end
end
if ended == '1' then
  redis.call('ZADD', KEYS[15], now_ms, job_id)
  redis.call('ZREM', KEYS[22], job_id)
elseif ended == '0' or expected_rev == '' then
  redis.call('ZREM', KEYS[15], job_id)
  redis.call('ZADD', KEYS[22], deadline_ms, job_id)
end

if submit ~= 'keep' then
  redis.call('HDEL', KEYS[5], job_id)
  if submit == 'remove' then redis.call('ZREM', KEYS[4], job_id) else redis.call('ZADD', KEYS[4], submit, job_id) end
end
for _, look in ipairs(looks) do
  redis.call('HDEL', KEYS[7], look[1])
  if look[2] == '' then redis.call('ZREM', KEYS[6], look[1]) else redis.call('ZADD', KEYS[6], look[2], look[1]) end
end

local delivery = 0
for _, event in ipairs(events) do
  local number = next_sequence()
  local body = '{"sequence":' .. string.format('%d', number) .. ',' .. string.sub(event[3], 2)  -- into the object
  local entry = redis.call('XADD', KEYS[12], '*', 'id', event[1], 'type', event[2], 'job', job_id, 'body', body,
    'seq', number)
  if event[4] ~= '' then
    delivery = delivery + 1
    if delivery_url ~= gone_url then
      number = next_sequence()
      redis.call('HSET', KEYS[27 + delivery], 'id', event[4], 'event_id', event[1], 'type', event[2], 'entry', entry,
        'job', job_id, 'url', delivery_url, 'state', 'pending', 'attempts', '[]', 'created_at_ms', now_ms, 'seq', number,
        'schema', schema)
      redis.call('HSET', KEYS[26], 'name', destination_name, 'host', destination_host)
      redis.call('PERSIST', KEYS[26])
      redis.call('ZADD', KEYS[27], delivery_due_ms, event[4])
      redis.call('ZADD', KEYS[8], 'LT', delivery_due_ms, destination)
      redis.call('ZADD', KEYS[13], number, event[4])
      redis.call('RPUSH', KEYS[18], event[4])
      pending = pending + 1
      redis.call('HSET', KEYS[1], 'pending', pending)
    end
  end
end

if note ~= '' then redis.call('RPUSH', KEYS[3], note); redis.call('LTRIM', KEYS[3], -200, -1) end

local begun_number, news = 0, ''
if begins ~= '' then
  begun_number = pace_take(lane, clock_ms, 1, tonumber(answered_by_ms))
  pace_write(lane)
  if probes_model then redis.call('HSET', KEYS[16], 'probing:' .. begins, answered_by_ms) end
end
if heard ~= '' then
  pace_tell(23, 16, 17, {what = heard, model = heard_model, lifts = lifts, number = heard_number,
    pause_ms = heard_pause_ms, window_ms = heard_window_ms})
end
if hold ~= '' then
  if redis.call('HSETNX', KEYS[16], 'hold', hold) == 1 then
    redis.call('HSET', KEYS[16], 'hold_since_ms', now_ms, 'probe_at_ms', submit, 'probe_gap_ms', submit - now_ms)
    news = 'held'
  elseif is_hold_probe == '1' then  -- a probe was refused: the next comes after twice the time
    local gap_ms = tonumber(redis.call('HGET', KEYS[16], 'probe_gap_ms') or '0') or 0
    gap_ms = math.min(math.max(gap_ms, 2500) * 2, 60000)
    redis.call('HSET', KEYS[16], 'probe_at_ms', now_ms + gap_ms, 'probe_gap_ms', gap_ms)
  end
elseif release_hold == '1' then
  if redis.call('HDEL', KEYS[16], 'hold', 'hold_since_ms', 'probe_at_ms', 'probe_gap_ms') > 0 then news = 'resumed' end
end
if cool_model ~= '' then redis.call('HSET', KEYS[17], cool_model, cool_until_ms) end
redis.call('PUBLISH', changed_channel, new_rev)
if channel ~= '' then redis.call('PUBLISH', channel, 'due') end

-- Last, and unable to break the step: what is only counted. A field that holds no number stays as it is.
for _, counter in ipairs(counters) do redis.pcall('HINCRBY', KEYS[11], counter[1], counter[2]) end
if health_model ~= '' then
  if is_well == '1' then
    redis.call('HSET', KEYS[21], health_model .. '|in_a_row', 0, health_model .. '|ok_at_ms', now_ms)
  else
    redis.pcall('HINCRBY', KEYS[21], health_model .. '|in_a_row', 1)
    redis.call('HSET', KEYS[21], health_model .. '|failed_at_ms', now_ms)
  end
end
return {'ok', seq, begun_number, news}
