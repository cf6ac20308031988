-- Exact sums in a language whose only numbers are doubles, which are exact up to 2^53. The text of
-- this file precedes each script.
--
-- A sum of up to 2^64 - 1 millionths is two numbers: whole units `h` and the remaining millionths
-- `l`, 0 <= l < 1e6. At its highest value it saturates, as `Total` does.

local floor = math.floor
local END_H, END_L = 18446744073709, 551615

-- How long a token bucket is kept after it is full again, in microseconds: an hour. A call that
-- began before may still be settled at more, which is then missing from it.
local BUCKET_KEPT = 3.6e9

-- Makes the functions. It takes time, so a call that counts only in fixed windows does not.
local function limbs()
  -- Adds two sums, and saturates.
  local function plus(h, l, dh, dl)
    h, l = h + dh, l + dl
    if l >= 1e6 then h, l = h + 1, l - 1e6 end
    if h > END_H or (h == END_H and l > END_L) then return END_H, END_L end
    return h, l
  end

  -- Subtracts two sums; the result is at least zero.
  local function minus(h, l, dh, dl)
    h, l = h - dh, l - dl
    if l < 0 then h, l = h - 1, l + 1e6 end
    if h < 0 then return 0, 0 end
    return h, l
  end

  -- Returns whether two numbers are not a valid sum. NaN and infinities are not valid either.
  local function odd(h, l)
    return not (h % 1 == 0 and l % 1 == 0 and h >= 0 and l >= 0 and l < 1e6
      and (h < END_H or (h == END_H and l <= END_L)))
  end

  -- Returns whether a number is not an integer of at most 2^53.
  local function broken(x)
    return not (x % 1 == 0 and x <= 9007199254740992 and x >= -9007199254740992)
  end

  -- Returns what is missing from a bucket `dt` microseconds later. The level is (h, l) millionths
  -- and `r` parts of one; `w` parts are a whole one. Each microsecond brings back a * w + b parts,
  -- b < w. Every product and sum stays below 2^53 if w <= 3.5e13.
  local function drain(h, l, r, w, a, b, dt)
    if dt <= 0 or (h == 0 and l == 0 and r == 0) then return h, l, r end
    -- All of it has come back, by a margin larger than any rounding error. So from here on,
    -- a * dt is at most slightly above 2^64.
    if dt * (a + b / w) > (h * 1e6 + l + 2) * 1.000001 then return 0, 0, 0 end
    -- a * dt, in limbs of a million.
    local a1, d1 = floor(a / 1e6), floor(dt / 1e6)
    local a0, d0 = a - a1 * 1e6, dt - d1 * 1e6
    local low = a0 * d0
    local carry = floor(low / 1e6)
    local dh, dl = a1 * d1 * 1e6 + a1 * d0 + a0 * d1 + carry, low - carry * 1e6
    -- b * dt / w and the remainder, by long division over the digits of dt in base 128.
    local rest = 0
    if b > 0 then
      local whole, place = 0, 1
      while place * 128 <= dt do place = place * 128 end
      while place >= 1 do
        local digit = floor(dt / place)
        dt, place = dt - digit * place, place / 128
        local x = rest * 128 + b * digit
        local d = floor(x / w)
        rest, whole = x - d * w, whole * 128 + d
      end
      local wh = floor(whole / 1e6)
      dh, dl = dh + wh, dl + whole - wh * 1e6
      if dl >= 1e6 then dh, dl = dh + 1, dl - 1e6 end
    end
    r = r - rest
    if r < 0 then
      r, dl = r + w, dl + 1
      if dl >= 1e6 then dh, dl = dh + 1, dl - 1e6 end
    end
    if h < dh or (h == dh and l < dl) then return 0, 0, 0 end
    h, l = minus(h, l, dh, dl)
    return h, l, r
  end

  -- Returns an upper bound on the microseconds in which a level comes back; infinite at rate zero.
  local function drained_after(h, l, r, w, a, b)
    if h == 0 and l == 0 and r == 0 then return 0 end
    return (h * 1e6 + l + 1) / (a + b / w) * 1.000001 + 1
  end

  -- Returns when a key expires, in milliseconds: `late` microseconds after `at`, at most 2^53.
  local function expiry(at, late)
    at = at + late
    if not (at < 9007199254740992) then at = 9007199254740992 end
    return floor(at / 1000) + 1
  end

  return plus, minus, odd, broken, drain, drained_after, expiry
end

local plus, minus, odd, broken, drain, drained_after, expiry
