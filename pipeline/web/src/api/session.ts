/** The token that this page shows. It goes into headers only, and is forgotten with the tab. */

import { useSyncExternalStore } from 'react';

const KEY = 'fluxline.token';

/** What the page knows of its token; a new object whenever that changes. */
export interface Login {
  token: string | null;
  /** why the last token was not taken */
  problem: string;
}

function read(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

let login: Login = { token: read(), problem: '' };
const listeners = new Set<() => void>();

export function currentToken(): string | null {
  return login.token;
}

/** Shows this token from now on; `null` logs out. */
export function setToken(token: string | null, problem = ''): void {
  login = { token, problem };
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // A browser without storage forgets at the next load; nothing else changes.
  }
  for (const tell of listeners) tell();
}

function subscribe(tell: () => void): () => void {
  listeners.add(tell);
  return () => listeners.delete(tell);
}

export function useLogin(): Login {
  return useSyncExternalStore(subscribe, () => login);
}

export function authorization(): Record<string, string> {
  return login.token === null ? {} : { authorization: `Bearer ${login.token}` };
}

/** What a WebSocket offers: browsers let a page set no header there, and an address is no place for a token. */
export function protocols(): string[] {
  return login.token === null ? ['fluxline'] : ['fluxline', `fluxline.token.${login.token}`];
}
