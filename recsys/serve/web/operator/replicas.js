// The replicas behind one address: each answer is of one of them, and names it.

const ADDS = ["requests_per_s", "events"];
const KEPT = 360;
const SILENT_MS = 60_000; // of which nothing was heard for longer is left out

export class Replicas {
  constructor() {
    this.known = new Map();
  }

  /** Since when samples are wanted: which replica will answer is not known before. */
  newest() {
    const newest = [...this.known.values()].map(({ samples }) => samples.at(-1)?.time_ms ?? 0);
    return newest.length ? Math.min(...newest) : 0;
  }

  take(answer) {
    const now = Date.now();
    const before = this.known.get(answer.replica)?.samples ?? [];
    const last = before.at(-1)?.time_ms ?? 0;
    const samples = [...before, ...answer.samples.filter(({ time_ms }) => time_ms > last)].slice(-KEPT);
    this.known.set(answer.replica, { ...answer, samples, heard: now });
    for (const [name, { heard }] of this.known) if (now - heard > SILENT_MS) this.known.delete(name);
  }

  get all() {
    return [...this.known.values()];
  }

  sum(of) {
    return this.all.reduce((sum, one) => sum + of(one), 0);
  }

  rows() {
    return this.all.map(({ replica, version, heard, samples }) => {
      const last = samples.at(-1);
      const { requests_per_s: rate = null, p99_ms: p99 = null } = last ?? {};
      const { log_lag_events: lag = 0, memory_bytes: memory = null } = last ?? {};
      return { replica, version, heard, rate, p99, lag, memory };
    });
  }

  /** The steps of a recommendation over all replicas. */
  steps() {
    const all = new Map();
    for (const { step, times, mean_ms } of this.all.flatMap(({ steps }) => steps)) {
      const { times: before = 0, ms = 0 } = all.get(step) ?? {};
      all.set(step, { times: before + times, ms: ms + times * (mean_ms ?? 0) });
    }
    return [...all].map(([step, { times, ms }]) => ({ step, times, mean_ms: times ? ms / times : null }));
  }

  /** A line a replica of one figure of its samples, the times on the raster that all share. */
  lines(name) {
    return this.all.map(({ replica, samples, sample_ms }) => ({
      name: replica,
      points: samples.map((sample) => [sample.time_ms - (sample.time_ms % sample_ms), sample[name]]),
    }));
  }

  /** The newest value of `trend`. */
  now(name) {
    return this.trend(name).at(-1) ?? null;
  }

  /** What the replicas say together: what each counts adds up, what all know alike is the largest. */
  trend(name) {
    const join = ADDS.includes(name) ? (values) => values.reduce((a, b) => a + b, 0) : (values) => Math.max(...values);
    const lines = this.lines(name).map(({ points }) => new Map(points));
    const times = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
    const last = new Map(); // a replica that says nothing at a time is as it was before
    return times.map((time) => {
      lines.forEach((line, place) => line.has(time) && last.set(place, line.get(time)));
      return join([...last.values()]);
    });
  }
}
