// A part of some JSON, with the path that leads to it, so that an error can say where it is.

export class Part {
  constructor(
    readonly value: unknown,
    readonly path: string,
  ) {}

  /** A missing key counts as null. */
  get absent(): boolean {
    return this.value === null || this.value === undefined;
  }

  at(key: string): Part {
    const inside = this.absent ? undefined : (this.value as Record<string, unknown>)[key];
    return new Part(inside, this.path ? `${this.path}.${key}` : key);
  }

  wrong(got: string, need: string): never {
    throw new Error(`${this.path || "the data"} ${got} and must ${need}`);
  }

  shown(): string {
    if (this.value === undefined) return "is missing";
    if (this.value === null) return "is null";
    if (Array.isArray(this.value)) return "is an array";
    if (typeof this.value === "object") return "is an object";
    const text = JSON.stringify(this.value);
    return `is ${text.length > 40 ? text.slice(0, 40) + "…" : text}`;
  }

  object(): void {
    if (this.absent || typeof this.value !== "object" || Array.isArray(this.value)) this.wrong(this.shown(), "be an object");
  }

  array(): Part[] {
    if (!Array.isArray(this.value)) this.wrong(this.shown(), "be an array");
    return this.value.map((value, index) => new Part(value, `${this.path}[${index}]`));
  }

  text(): string | null {
    if (this.absent) return null;
    if (typeof this.value !== "string") this.wrong(this.shown(), "be a string or null");
    return this.value;
  }

  strings(): string[] {
    if (!Array.isArray(this.value)) this.wrong(this.shown(), "be an array of strings");
    const at = this.value.findIndex(value => typeof value !== "string");
    if (at >= 0) new Part(this.value[at], `${this.path}[${at}]`).wrong(new Part(this.value[at], "").shown(), "be a string");
    return this.value;
  }

  number(): number | null {
    if (this.absent) return null;
    if (typeof this.value !== "number") this.wrong(this.shown(), "be a number or null");
    return this.value;
  }

  whole(least: number): number {
    if (!Number.isSafeInteger(this.value) || (this.value as number) < least) {
      this.wrong(this.shown(), `be a whole number, at least ${least}`);
    }
    return this.value as number;
  }

  numbers(): (number | null)[] | null {
    if (this.absent) return null;
    if (!Array.isArray(this.value)) this.wrong(this.shown(), "be an array of numbers or null");
    const at = this.value.findIndex(value => value !== null && typeof value !== "number");
    if (at >= 0) new Part(this.value[at], `${this.path}[${at}]`).number();
    return this.value;
  }

  /** One value for each key; all of them of an absent part when the part is absent. */
  record<K extends string, V>(keys: readonly K[], read: (part: Part) => V): Record<K, V> {
    if (!this.absent) this.object();
    return Object.fromEntries(keys.map(key => [key, read(this.at(key))])) as Record<K, V>;
  }
}

export const ROOT = (value: unknown): Part => new Part(value, "");
