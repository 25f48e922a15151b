// Numbers and times for people. What is not known is said to be unknown, never zero.

export const UNKNOWN = "unknown";

export function perSecond(count, seconds) {
  const rate = count / seconds;
  if (rate === 0) return "0";
  return rate >= 100 ? rate.toFixed(0) : rate >= 10 ? rate.toFixed(1) : rate.toFixed(2);
}

export function percent(part, whole) {
  if (!whole) return "–";
  const share = (part / whole) * 100;
  return share === 0 ? "0 %" : share < 0.1 ? "< 0.1 %" : `${share.toFixed(share < 10 ? 1 : 0)} %`;
}

// Seconds, null where nothing was measured.
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms >= 1000) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

export function bytes(count) {
  if (count === null || count === undefined) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

// A time of day, with the day where it is not today's; RFC 3339 or seconds since 1970.
export function time(at) {
  if (at === null || at === undefined || at === "") return UNKNOWN;
  const date = new Date(typeof at === "number" ? at * 1000 : at);
  if (Number.isNaN(date.getTime())) return UNKNOWN;
  const clock = date.toLocaleTimeString([], { hour12: false });
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock : `${date.toLocaleDateString()} ${clock}`;
}

export function plural(count, one, many) {
  return count === 1 ? `1 ${one}` : `${count} ${many}`;
}
