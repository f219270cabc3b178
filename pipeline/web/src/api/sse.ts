/** Server-sent events by `fetch`: `EventSource` can show no token. */

export interface SentEvent {
  id: string;
  event: string;
  data: string;
}

/** Takes text as it comes, in pieces cut anywhere, and gives the events that are whole. */
export class EventParser {
  private rest = '';
  private event = '';
  private data: string[] = [];
  private id = '';

  push(text: string): SentEvent[] {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    const events: SentEvent[] = [];
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (this.data.length > 0) events.push({ id: this.id, event: this.event || 'message', data: this.data.join('\n') });
        this.event = '';
        this.data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (name === 'event') this.event = value;
      else if (name === 'data') this.data.push(value);
      else if (name === 'id') this.id = value;
    }
    return events;
  }
}

const RETRY_MS = 2_000;

/** Listens, again and again from the last event on, until the signal or `take` says that it is over. */
export async function listen(
  url: string,
  headers: () => Record<string, string>,
  signal: AbortSignal,
  take: (event: SentEvent) => boolean,
): Promise<void> {
  let last = '';
  while (!signal.aborted) {
    try {
      const resume: Record<string, string> = last === '' ? {} : { 'last-event-id': last };
      const response = await fetch(url, { headers: { ...headers(), ...resume }, signal, cache: 'no-store' });
      if (response.ok && response.body) {
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        const parser = new EventParser();
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          for (const event of parser.push(value)) {
            last = event.id;
            if (!take(event)) {
              await reader.cancel();
              return;
            }
          }
        }
      }
    } catch {
      // Not there just now; asked again below, unless nobody wants it any more.
    }
    if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
