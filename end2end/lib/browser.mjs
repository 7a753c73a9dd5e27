// A real Chromium, and pages that fail a test when anything in them breaks.

import { chromium } from 'playwright-core';
import { PASSWORD } from './stack.mjs';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch() {
  return chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: FLAGS });
}

// A page of its own session. `page.complaints` collects what the browser
// complains about: errors, hydration warnings, breaches of the policy.
// `expected` lets through what a test provokes.
export async function openPage(browser, url, { expected, ...options } = {}) {
  const context = await browser.newContext({ baseURL: url, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.setDefaultTimeout(20_000);
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    const text = `${message.text()} ${message.location().url}`;
    if (!expected?.test(text)) page.complaints.push(text);
  });
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  return page;
}

export async function signIn(page, password = PASSWORD) {
  await page.goto('/sign-in');
  await page.getByLabel('User name').fill('admin');
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

// Notes every state the life-cycle picture lights, from now on.
export async function watchStates(page) {
  await page.locator('.lifecycle-svg:visible').waitFor();
  await page.evaluate(() => {
    // One drawing for wide windows, one for narrow ones.
    const picture = [...document.querySelectorAll('.lifecycle-svg')].find(
      (svg) => svg.getClientRects().length > 0,
    );
    const lit = () => picture.querySelector('[data-current]')?.getAttribute('data-state');
    window.litStates = [lit()];
    new MutationObserver(() => {
      const state = lit();
      if (state && state !== window.litStates.at(-1)) window.litStates.push(state);
    }).observe(picture, { attributes: true, subtree: true, attributeFilter: ['data-current'] });
  });
}

export const litStates = (page) => page.evaluate(() => window.litStates);

export async function untilState(page, state, timeout = 60_000) {
  await page.locator(`.lifecycle-svg:visible [data-state="${state}"][data-current]`).waitFor({ timeout });
}

// Types at the serial console and waits for the answer.
export async function ask(page, command, answer, timeout = 60_000) {
  const screen = page.locator('.console-screen .xterm-rows');
  await screen.waitFor();
  await page.locator('.console-screen textarea').focus();
  await page.keyboard.type(command);
  await page.keyboard.press('Enter');
  await page.waitForFunction(
    (pattern) => new RegExp(pattern).test(document.querySelector('.xterm-rows').innerText),
    answer,
    { timeout },
  );
}
