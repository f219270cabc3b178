import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import '@h5web/lib/styles.css';
import './styles.css';
import { App } from './App';

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}
