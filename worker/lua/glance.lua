-- Look whether jobs are plainly in order, many at a time and as cheaply as can be. Writes nothing, and doubts too much
-- rather than too little: what it doubts is judged by its whole record.
--
-- ARGV  1 prefix of keys  2 newest schema of records that is known  3 statuses that have ended, between commas
--       4 those of which a job is on its submit wheel, likewise  5 how much later (ms) than said a job may be due there
--       6... ids of jobs
-- RETURNS  the ids of those that are not plainly in order
-- COST  about 25 microseconds a job
local prefix, known, has_ended, has_submit_wheel, later_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local deadlines, ended, track = prefix .. ':deadlines', prefix .. ':ended', prefix .. ':wheel:track'
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local SURELY_FAILED = {generation_failed = true, content_rejected = true, invalid_input = true}

local function is_over(attempt)  -- nothing more can be heard of its task
  local outcome, failure = attempt.outcome, attempt.failure
  return attempt.late ~= nil or outcome == 'succeeded' or outcome == 'refused'
    or (outcome == 'failed' and failure ~= nil and failure.http_status == 200 and SURELY_FAILED[failure.code])
end

local function is_in_order(id)
  local record = prefix .. ':job:' .. id
  local schema, status, seq, pending, spec, state = unpack(
    redis.call('HMGET', record, 'schema', 'status', 'seq', 'pending', 'spec', 'state'))
  if not schema or (tonumber(schema) or 0) > known then return true end  -- gone; or a newer version's
  spec, state = cjson.decode(spec), cjson.decode(state)
  local index, model = prefix .. ':index:' .. status .. ':' .. spec.kind, spec.models[state.model_index + 1]
  if redis.call('ZSCORE', index, id) ~= seq or redis.call('ZSCORE', index .. ':' .. model, id) ~= seq then return false end
  for _, other in ipairs(spec.models) do
    if other ~= model and redis.call('ZSCORE', index .. ':' .. other, id) then return false end
  end
  local mark = ',' .. status .. ','
  local is_ended = string.find(has_ended, mark, 1, true) ~= nil
  if (redis.call('ZSCORE', ended, id) and true or false) ~= is_ended then return false end
  if not is_ended and not redis.call('ZSCORE', deadlines, id) then return false end
  if string.find(has_submit_wheel, mark, 1, true) then
    local due_ms = tonumber(redis.call('ZSCORE', prefix .. ':wheel:submit:' .. spec.kind, id) or '')
    local said_ms = tonumber(state.next_action_at_ms) or 0  -- cjson.null is no number
    if not due_ms or due_ms > math.max(said_ms, now_ms) + later_ms then return false end
  end
  local found = 0
  for _, delivery in ipairs(redis.call('LRANGE', prefix .. ':deliveries-of:' .. id, 0, -1)) do
    if redis.call('HGET', prefix .. ':delivery:' .. delivery, 'state') == 'pending' then found = found + 1 end
  end
  if tonumber(pending or '0') ~= found then return false end
  for _, attempt in ipairs(state.attempts) do
    local is_being_sent = status == 'submitting' and not attempt.outcome and not attempt.task_id
    if not (is_over(attempt) or is_being_sent) then
      if not redis.call('ZSCORE', track, string.format('%d:%s', attempt.number, id)) then return false end
    end
  end
  return true
end

local doubtful = {}
for i = 6, #ARGV do
  local fine, answer = pcall(is_in_order, ARGV[i])
  if not (fine and answer) then doubtful[#doubtful + 1] = ARGV[i] end
end
return doubtful
