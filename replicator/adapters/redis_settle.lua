-- Mark one batch done. KEYS[1]: meta, KEYS[2]: open batches.
-- ARGV: incarnation, epoch, batch, undone as '3,17,' (from 0), watermark, window_ms, prefix, keep_ms.
-- Answers {'ok'}, {'lost', why} or {'fenced', epoch}. About the bucket names see redis_claim.lua.
local meta = redis.call('HMGET', KEYS[1], 'inc', 'ep', 'n', 'wm', 'gens')
if not meta[1] then return {'lost', 'there is no state'} end
if meta[1] ~= ARGV[1] then return {'lost', 'the state is another incarnation'} end
if tonumber(meta[2]) > tonumber(ARGV[2]) then return {'fenced', meta[2]} end
if meta[2] ~= ARGV[2] then return {'lost', 'the state is older than this session'} end
local stored = redis.call('HGET', KEYS[2], ARGV[3])
if not stored then
  if tonumber(meta[3]) >= tonumber(ARGV[3]) then return {'ok'} end
  return {'lost', 'the batch counter stands at ' .. meta[3]}
end

local count = #stored / 21
local undone = {}
for index in string.gmatch(ARGV[4], '(%d+),') do undone[tonumber(index)] = true end

-- Generations, newest first, as 'id,start_ms,buckets,entries;'. A bucket must stay a small listpack: at most 90 entries.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local window = tonumber(ARGV[6])
local FULL, MOST = 90, 16384
local gens, closed = {}, nil
for id, start, subs, entries in string.gmatch(meta[5], '(%d+),(%d+),(%d+),(%d+);') do
  if closed == nil or closed + window >= now then
    gens[#gens + 1] = {tonumber(id), tonumber(start), tonumber(subs), tonumber(entries)}
  end
  closed = tonumber(start)
end
local current = gens[1]
local is_old = current and now - current[2] >= window / 2
if not current or is_old or (current[4] + count > current[3] * FULL and current[3] < MOST) then
  local wanted = count / FULL
  if current then wanted = is_old and math.max(wanted, current[4] / FULL) or current[3] * 4 end
  local subs = 1
  while subs < wanted and subs < MOST do subs = subs * 2 end
  current = {(current and current[1] or 0) + 1, now, subs, 0}
  table.insert(gens, 1, current)
end

local prefix, expire_at = ARGV[7] .. current[1] .. ':', current[2] + math.floor(window * 1.5) + 1000
local touched = {}
for index = 0, count - 1 do
  local verdict = string.sub(stored, count * 20 + index + 1, count * 20 + index + 1)
  if verdict ~= 'd' and not undone[index] then
    local digest = string.sub(stored, index * 20 + 1, index * 20 + 16)
    local check = string.sub(stored, index * 20 + 17, index * 20 + 20)
    local a, b = string.byte(digest, 1, 2)
    local key = prefix .. ((a * 256 + b) % current[3])
    if redis.call('HSETNX', key, digest, check) == 0 and redis.call('HGET', key, digest) ~= check then
      redis.call('HSET', key, digest .. check, 1)
    end
    current[4] = current[4] + 1
    if not touched[key] then
      touched[key] = true
      if redis.call('PTTL', key) < 0 then redis.call('PEXPIREAT', key, expire_at) end
    end
  end
end

local texts = {}
for _, gen in ipairs(gens) do
  texts[#texts + 1] = string.format('%d,%d,%d,%d;', gen[1], gen[2], gen[3], gen[4])
end
-- Sequence numbers have up to 129 digits: the longer is the greater, then text order decides.
local watermark = meta[4]
if #ARGV[5] > #watermark or (#ARGV[5] == #watermark and ARGV[5] > watermark) then watermark = ARGV[5] end
redis.call('HSET', KEYS[1], 'gens', table.concat(texts), 'wm', watermark, 'at', now)
redis.call('HDEL', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
return {'ok'}
