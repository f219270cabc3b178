import { describe, expect, it } from 'vitest';
import { EventParser } from './sse';

const TEXT = 'id: 0\nevent: armed\ndata: {"a":1}\n\n: keep alive\n\nid: 1\r\nevent: end\r\ndata: two\r\ndata:lines\r\n\r\n';

describe('server-sent events', () => {
  it('come out whole wherever the text is cut', () => {
    for (let size = 1; size <= TEXT.length; size += 1) {
      const parser = new EventParser();
      const events = [];
      for (let at = 0; at < TEXT.length; at += size) events.push(...parser.push(TEXT.slice(at, at + size)));
      expect(events).toEqual([
        { id: '0', event: 'armed', data: '{"a":1}' },
        { id: '1', event: 'end', data: 'two\nlines' },
      ]);
    }
  });

  it('wait for their end', () => {
    expect(new EventParser().push('id: 0\ndata: half')).toEqual([]);
  });
});
