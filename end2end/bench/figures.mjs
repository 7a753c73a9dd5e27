// What was measured, each beside what it is to be.

export const figures = [];

export function figure(name, value, unit, goal) {
  figures.push({ name, value: Math.round(value * 10) / 10, unit, goal });
}

export const quantile = (values, share) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];

export function show() {
  for (const { name, value, unit, goal } of figures) {
    console.log(`${name.padEnd(52)}${String(value).padStart(9)} ${unit.padEnd(5)}${goal}`);
  }
}
