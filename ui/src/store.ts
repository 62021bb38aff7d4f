// What the reader has chosen, and who wants to know when it changes.

export interface State {
  /** Index of the head in `Lens.heads`. */
  head: number;
  /** Key of the measure of the dashboard. */
  measure: string;
  log: boolean;
  hideSinks: boolean;
  /** The token whose reading is shown. */
  token: number;
  /** Whether the dark theme is on. */
  dark: boolean;
}

type Key = keyof State;

export class Store {
  private readonly listeners: { keys: readonly Key[]; call: () => void }[] = [];

  /** `place` goes before the ids of what shows this choice, where a page shows several. */
  constructor(
    private state: State,
    readonly place = "",
  ) {}

  /** All that is chosen now. */
  get all(): State {
    return { ...this.state };
  }

  get<K extends Key>(key: K): State[K] {
    return this.state[key];
  }

  set(change: Partial<State>): void {
    const changed = (Object.keys(change) as Key[]).filter(key => this.state[key] !== change[key]);
    if (changed.length === 0) return;
    this.state = { ...this.state, ...change };
    for (const { keys, call } of this.listeners) if (keys.some(key => changed.includes(key))) call();
  }

  /** Calls back after a change of one of the keys, and once now. */
  watch(keys: readonly Key[], call: () => void): void {
    this.listeners.push({ keys, call });
    call();
  }
}
