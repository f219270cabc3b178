/** Asks for a token where the appliance does. */

import { useState, type FormEvent } from 'react';
import { setToken, useLogin } from '../api/session';

export function Login() {
  const { problem } = useLogin();
  const [text, setText] = useState('');
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const token = text.trim();
    if (token !== '') setToken(token);
    setText('');
  };
  return (
    <form className="login" data-testid="login" onSubmit={submit}>
      <label htmlFor="token">This appliance asks for a token</label>
      <span className="login-line">
        <input id="token" type="password" autoComplete="off" spellCheck={false} autoFocus value={text} onChange={(event) => setText(event.target.value)} />
        <button type="submit" disabled={text.trim() === ''}>
          Log in
        </button>
      </span>
      <span className="login-problem" role="alert" data-testid="login-problem">
        {problem}
      </span>
      <span className="dim">Whoever runs the appliance makes one: fluxline token create NAME --role viewer</span>
    </form>
  );
}
