-- Reserve one batch. KEYS[1]: meta, KEYS[2]: open batches. ARGV: incarnation, epoch, batch, claims, window_ms, prefix.
-- A claim is 16 bytes of digest and 4 bytes of check. Answers {'ok', verdicts}, {'lost', why} or {'fenced', epoch}.
-- Bucket names are made here from ARGV[6]: they carry the same hash tag as KEYS[1], so all keys are in its slot; which
-- buckets are live is known only to the meta hash, so the caller can't declare them.
local meta = redis.call('HMGET', KEYS[1], 'inc', 'ep', 'n', 'gens')
if not meta[1] then return {'lost', 'there is no state'} end
if meta[1] ~= ARGV[1] then return {'lost', 'the state is another incarnation'} end
if tonumber(meta[2]) > tonumber(ARGV[2]) then return {'fenced', meta[2]} end
if meta[2] ~= ARGV[2] then return {'lost', 'the state is older than this session'} end
local batch, last = tonumber(ARGV[3]), tonumber(meta[3])
local blob = ARGV[4]
if batch == last then
  local stored = redis.call('HGET', KEYS[2], ARGV[3])
  if not stored or string.sub(stored, 1, #blob) ~= blob then return {'lost', 'the batch counter went another way'} end
  return {'ok', string.sub(stored, #blob + 1)}
end
if batch ~= last + 1 then return {'lost', 'the batch counter stands at ' .. meta[3]} end

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local live = {}
local closed = nil
for id, start, subs in string.gmatch(meta[4], '(%d+),(%d+),(%d+),%d+;') do
  -- Newest first: a generation was written to until the newer one began.
  if closed == nil or closed + tonumber(ARGV[5]) >= now then
    live[#live + 1] = {ARGV[6] .. id .. ':', tonumber(subs)}
  end
  closed = tonumber(start)
end

local verdicts = {}
for at = 1, #blob, 20 do
  local digest, check = string.sub(blob, at, at + 15), string.sub(blob, at + 16, at + 19)
  local a, b = string.byte(digest, 1, 2)
  local place = a * 256 + b
  local verdict = 'n'
  for _, generation in ipairs(live) do
    local found = redis.call('HGET', generation[1] .. (place % generation[2]), digest)
    if found == check then
      verdict = 'd'
      break
    elseif found then
      verdict = 'c'
    end
  end
  if verdict == 'c' then
    for _, generation in ipairs(live) do
      if redis.call('HEXISTS', generation[1] .. (place % generation[2]), digest .. check) == 1 then verdict = 'd' end
    end
  end
  verdicts[#verdicts + 1] = verdict
end
local answer = table.concat(verdicts)
redis.call('HSET', KEYS[2], ARGV[3], blob .. answer)
redis.call('HSET', KEYS[1], 'n', ARGV[3])
return {'ok', answer}
