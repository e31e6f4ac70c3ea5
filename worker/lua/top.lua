-- Read the newest members of several indexes as of one moment.
--
-- KEYS  the indexes: sorted sets of ids by sequence
-- ARGV  1 only what is below this sequence, '' for all  2 how many at most
-- RETURNS  {id, sequence, ...}, newest first; an id that stands in several indexes comes once
-- COST  each index is read a few members at a time, as far as the merge gets: about limit + 16 * indexes members
local STEP = 16
local top = ARGV[1] == '' and '+inf' or '(' .. ARGV[1]
local limit = tonumber(ARGV[2])
local heads = {} -- for each index that has more: its key, what was read of it, where in that, how far in the index

local function read_on(head)
  head.rows = redis.call('ZREVRANGEBYSCORE', head.key, top, '-inf', 'WITHSCORES', 'LIMIT', head.offset, head.step)
  head.offset = head.offset + head.step
  head.step = math.min(head.step * 2, 256)
  head.at = 1
  head.sequence = tonumber(head.rows[2])
end

for _, key in ipairs(KEYS) do
  local head = {key = key, offset = 0, step = STEP}
  read_on(head)
  if head.sequence then heads[#heads + 1] = head end
end

local newest, seen, found = {}, {}, 0
while found < limit and #heads > 0 do
  local best = 1
  for i = 2, #heads do
    if heads[i].sequence > heads[best].sequence then best = i end
  end
  local head = heads[best]
  local id = head.rows[head.at]
  if not seen[id] then
    seen[id] = true
    found = found + 1
    newest[2 * found - 1], newest[2 * found] = id, head.rows[head.at + 1]
  end
  head.at = head.at + 2
  head.sequence = tonumber(head.rows[head.at + 1])
  if not head.rows[head.at] then
    read_on(head)
    if not head.sequence then table.remove(heads, best) end
  end
end
return newest
