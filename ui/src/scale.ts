// Numbers to lengths and colours, and numbers to words.

/** The least mass that a logarithmic scale tells from nothing; a byte of a map cannot hold less than 1.5e-5 (1/255²). */
export const LEAST = 1e-5;

/** Mass to 0…1: linear up to `most`, or logarithmic from `LEAST` to `most`. */
export function shade(mass: number, most: number, log: boolean): number {
  if (!(mass > 0) || !(most > 0)) return 0;
  if (!log) return Math.min(1, mass / most);
  if (mass <= LEAST || most <= LEAST) return 0;
  return Math.min(1, Math.log(mass / LEAST) / Math.log(most / LEAST));
}

/** Round numbers from `low` to `high`, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find(factor => factor * power >= rough) ?? 10);
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

const NUMBERS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345 */
export const whole = (value: number): string => NUMBERS.format(value);

/** Three significant digits, never an exponent for what a person can read. */
export function number(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(Number(value.toPrecision(3)));
  if (size >= 1000) return minus(whole(value));
  if (size === 0) return "0";
  if (size < 0.0005) return minus(size < 0.000001 ? value.toExponential(0) : value.toFixed(Math.ceil(-Math.log10(size))));
  return minus(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3));
}

/** 3.2e−7, with so many digits after the point. */
export const power = (value: number, digits: number): string => (value === 0 ? "0" : minus(value.toExponential(digits)));

/** A number on an axis, with no more digits than it needs. */
export const tick = (value: number): string => minus(Math.abs(value) >= 1000 ? whole(value) : String(Number(value.toPrecision(6))));

/** 42 %, with a digit more where it is little. */
export function percent(share: number | null): string {
  if (share === null || !Number.isFinite(share)) return "–";
  const value = 100 * share;
  if (value !== 0 && Math.abs(value) < 0.1) return "under 0.1 %";
  return `${minus(value.toFixed(Math.abs(value) < 10 && value !== 0 ? 1 : 0))} %`;
}

/** Mass of a cell, from what a byte could hold of it. */
export function mass(value: number): string {
  return value < LEAST ? "less than 0.00001" : value.toFixed(value < 0.001 ? 5 : value < 0.1 ? 4 : 3);
}

/** 1.2 M */
export function short(value: number): string {
  for (const [size, unit] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e4, "k"],
  ] as const) {
    if (value >= size) return `${number(value / (unit === "k" ? 1e3 : size))} ${unit}`;
  }
  return whole(value);
}

/** A true minus sign in place of the hyphen. */
export const minus = (text: string): string => text.replaceAll("-", "−");

/** The mean of the numbers that are there; null when none is. */
export function mean(values: readonly (number | null)[]): number | null {
  const there = values.filter((value): value is number => value !== null);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

/** The value below which a share of the numbers lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low + (high - low) * (at - Math.floor(at));
}
