// Colours for numbers. Lightness is linear in the number, so that they read in grey and with any colour vision.

export type Rgb = [number, number, number];

/** A path through OKLCH: lightness, chroma and hue (degrees) at 0 and at 1; chroma swells between. */
interface Path {
  lightness: [number, number];
  hue: [number, number];
  chroma: number;
}

// Nothing is the paper's own colour, in both themes; much is what stands out most.
const SEQUENTIAL: Record<"light" | "dark", Path> = {
  light: { lightness: [0.985, 0.28], hue: [105, 275], chroma: 0.14 },
  dark: { lightness: [0.22, 0.95], hue: [285, 105], chroma: 0.14 },
};

// Below zero blue, above zero orange: the pair that the common kinds of colour-blindness tell apart.
const DIVERGING: Record<"light" | "dark", { middle: number; end: number }> = {
  light: { middle: 0.97, end: 0.52 },
  dark: { middle: 0.26, end: 0.78 },
};

/** The colour of `t` from 0 to 1. */
export function sequential(t: number, dark: boolean): Rgb {
  const path = SEQUENTIAL[dark ? "dark" : "light"];
  const at = clamp(t);
  return oklch(mix(path.lightness, at), 0.006 + path.chroma * Math.sin(Math.PI * 0.9 * at ** 0.8), mix(path.hue, at));
}

/** The colour of `t` from −1 to 1. */
export function diverging(t: number, dark: boolean): Rgb {
  const { middle, end } = DIVERGING[dark ? "dark" : "light"];
  const size = clamp(Math.abs(t));
  return oklch(mix([middle, end], size), 0.15 * size, t < 0 ? 255 : 55);
}

/** A colour for each of a few kinds, told apart by hue and by lightness; they repeat after eight. */
export function kind(index: number, dark: boolean): Rgb {
  const at = ((index % 8) + 8) % 8;
  const lightness = (dark ? 0.42 : 0.62) + 0.3 * ((at % 4) / 3);
  return oklch(lightness, 0.11, 20 + 45 * ((at * 3) % 8));
}

export const css = ([r, g, b]: Rgb): string => `rgb(${r},${g},${b})`;

/** Black or white, whichever reads better on a colour (WCAG 2, relative luminance). */
export function ink(colour: Rgb): string {
  const [r, g, b] = colour.map(value => toLinear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

const clamp = (t: number): number => Math.min(1, Math.max(0, t));
const mix = ([a, b]: [number, number], t: number): number => a + (b - a) * t;

/** OKLCH to sRGB (Ottosson 2020); chroma gives way where the screen has no such colour, so that lightness holds. */
function oklch(lightness: number, chroma: number, hue: number): Rgb {
  const angle = (hue * Math.PI) / 180;
  let c = chroma;
  for (let step = 0; step < 40; step++, c *= 0.93) {
    const rgb = oklab(lightness, c * Math.cos(angle), c * Math.sin(angle));
    if (rgb.every(value => value >= -1e-4 && value <= 1 + 1e-4)) return rgb.map(toByte) as Rgb;
  }
  return oklab(lightness, 0, 0).map(toByte) as Rgb;
}

function oklab(lightness: number, a: number, b: number): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

function toByte(linear: number): number {
  const value = clamp(linear);
  return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
}

function toLinear(value: number): number {
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
}
