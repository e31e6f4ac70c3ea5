-- Go through a page of an index, drop what is gone, and name what stands under what it is not.
--
-- KEYS  1 index  2 counters
-- ARGV  1 the score after which the page begins, '' for the first page  2 how many members at most
--       3 what the key of a record begins with  4 the field the index goes by  5 its value there
--       6 newest schema of records that is known  7 as what a repair counts
-- RETURNS  {the score to go on after or '', how many were dropped, the first of them or '', ids of what is to be judged...}
local after = ARGV[1] == '' and '-inf' or '(' .. ARGV[1]
local found = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local gone, answer = {}, {'', 0, ''}
for i = 1, #found, 2 do
  local record = ARGV[3] .. found[i]
  if redis.call('EXISTS', record) == 0 then
    gone[#gone + 1] = found[i]
  elseif redis.call('TYPE', record).ok == 'hash' then
    local value, schema = unpack(redis.call('HMGET', record, ARGV[4], 'schema'))
    if value and value ~= ARGV[5] and (tonumber(schema or '0') or 0) <= tonumber(ARGV[6]) then
      answer[#answer + 1] = found[i]
    end
  end
end
if #found == 2 * tonumber(ARGV[2]) then answer[1] = found[#found] end
answer[2], answer[3] = #gone, gone[1] or ''
for _, member in ipairs(gone) do redis.call('ZREM', KEYS[1], member) end
if #gone > 0 then redis.pcall('HINCRBY', KEYS[2], 'upkeep_repairs_total|' .. ARGV[7], #gone) end
return answer
