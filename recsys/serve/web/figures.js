// Prometheus' text of figures, as far as the page reads it.

const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    samples.push({ name: found[1], labels, value: Number(found[3].replace("+Inf", "Infinity")) });
  }
  return { samples, replica: samples[0]?.labels.replica ?? "" };
}

const sum = (samples) => samples.reduce((all, { value }) => all + value, 0);

export const total = ({ samples }, wanted) => sum(samples.filter(({ name }) => name === wanted));

export const counted = ({ samples }, wanted, label, holds) =>
  sum(samples.filter(({ name, labels }) => name === wanted && holds(labels[label] ?? "")));

/** A quantile of a histogram of all labels together: the line between two of its bounds. */
export function quantile({ samples }, name, share) {
  const upTo = new Map();
  for (const { name: one, labels, value } of samples)
    if (one === `${name}_bucket`) {
      const bound = Number(labels.le.replace("+Inf", "Infinity"));
      upTo.set(bound, (upTo.get(bound) ?? 0) + value);
    }
  const bounds = [...upTo].sort(([a], [b]) => a - b);
  const wanted = share * (bounds.at(-1)?.[1] ?? 0);
  let [low, below] = [0, 0];
  for (const [bound, count] of bounds) {
    if (count >= wanted && count > below)
      return bound === Infinity ? low : low + ((bound - low) * (wanted - below)) / (count - below);
    [low, below] = [bound, count];
  }
  return 0;
}
