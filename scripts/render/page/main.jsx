// One dashboard as one page: its panels in their grid, drawn from what Prometheus answered.

import 'uplot/dist/uPlot.min.css';
import './page.css';

import inter from '@fontsource-variable/inter/files/inter-latin-wght-normal.woff2';
import { cacheFieldDisplayNames, createTheme, dateTimeFormat, renderMarkdown, ThemeContext } from '@grafana/data';
import { Box, ErrorBoundary, PanelChrome, Stack, Text } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { createRoot } from 'react-dom/client';
import { MemoryRouter } from 'react-router-dom';
import { HeatmapPanel, StatesPanel } from './cells';
import { completed, framesOf, TIME_ZONE } from './frames';
import { BarGaugePanel, StatPanel } from './tiles';
import { TimeSeriesPanel } from './timeseries';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const SIDE = 16;
const theme = createTheme({ colors: { mode: 'dark' } });
const content = JSON.parse(document.getElementById('content').textContent);
const range = { from: content.from, to: content.to };

const KINDS = {
  timeseries: TimeSeriesPanel,
  stat: StatPanel,
  bargauge: BarGaugePanel,
  heatmap: HeatmapPanel,
  'state-timeline': StatesPanel,
  table: TablePanel,
  text: TextPanel,
};
// These need no frames, or have a place for "no data" of their own.
const SPEAKING = ['stat', 'bargauge', 'text'];

function TablePanel({ panel, frames, width, height }) {
  cacheFieldDisplayNames(frames); // The table's head reads them from there.
  return (
    <TableNG data={frames[0]} width={width} height={height} noHeader={panel.options.showHeader === false}
      cellHeight={panel.options.cellHeight} fieldConfig={panel.fieldConfig} structureRev={1} enableVirtualization={false} />
  );
}

function TextPanel({ panel }) {
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content ?? '') }} />;
}

function Message({ text, ...look }) {
  return (
    <Stack justifyContent="center" alignItems="center" height="100%">
      <Text color="secondary" {...look}>{text}</Text>
    </Stack>
  );
}

function Content({ panel, frames, width, height }) {
  const error = panel.answers.find((answer) => answer.error)?.error;
  if (error && !frames.length) {
    return <Message color="error" text={error} />;
  }
  const Drawn = KINDS[panel.type];
  if (!Drawn) {
    throw new Error(`there is no drawing for panels of type ${panel.type}`);
  }
  if (!frames.length && !SPEAKING.includes(panel.type)) {
    return <Message text={panel.fieldConfig.defaults.noValue || 'No data'} />;
  }
  return (
    <Drawn panel={panel} frames={frames} annotations={content.annotations} range={range}
      width={width} height={height} theme={theme} />
  );
}

function Placed({ panel, frames }) {
  const { x, y, w, h } = panel.gridPos;
  const column = (content.width - 2 * SIDE + GAP) / COLUMNS;
  const box = {
    left: SIDE + x * column,
    top: y * (CELL + GAP),
    width: w * column - GAP,
    height: h * (CELL + GAP) - GAP,
  };
  if (panel.type === 'row') {
    return <div className="placed" style={box}><Text element="h2" variant="h5">{panel.title}</Text></div>;
  }
  const padding = panel.type === 'table' ? 'none' : 'md';
  return (
    <div data-title={panel.title} className="placed" style={box}>
      <PanelChrome title={panel.title} width={box.width} height={box.height} padding={padding}
        titleItems={panel.answers.some(({ error }) => error) && <Text color="error">query error</Text>}>
        {(width, height) => (
          // One panel that cannot be drawn leaves the others alone.
          <ErrorBoundary>
            {({ error }) => error ? (
              <div className="undrawn"><Message color="error" text={`Not drawn: ${error.message}`} /></div>
            ) : (
              <Content panel={panel} frames={frames} width={width} height={height} />
            )}
          </ErrorBoundary>
        )}
      </PanelChrome>
    </div>
  );
}

function Page({ drawn }) {
  const time = (at, format) => dateTimeFormat(at, { format, timeZone: TIME_ZONE });
  const bottom = Math.max(...content.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <div className="page" style={{ width: content.width }}>
      <Box paddingX={2} paddingY={1}>
        <Stack justifyContent="space-between" alignItems="baseline">
          <Text element="h1" variant="h4">{content.title}</Text>
          <Text tabular>{time(range.from, 'YYYY-MM-DD HH:mm:ss')} to {time(range.to, 'HH:mm:ss')} UTC</Text>
        </Stack>
        <Stack alignItems="center">
          {content.variables.filter(({ text }) => text).map(({ label, text }) => (
            <span key={label} className="choice"><b>{label}</b>{text}</span>
          ))}
          <Box flex="1" />
          {content.annotations.map(({ name, color, spans, error }) => (
            <span key={name} className="annotation" style={{ borderColor: theme.visualization.getColorByName(color) }}>
              {name} <Text variant="bodySmall" color="secondary">{error ? 'query error' : spans.length || 'none'}</Text>
            </span>
          ))}
        </Stack>
      </Box>
      <main style={{ height: bottom * (CELL + GAP) }}>
        {drawn.map(({ panel, frames }) => <Placed key={panel.id} panel={panel} frames={frames} />)}
      </main>
      <Box paddingX={2} paddingBottom={2}>
        <Text variant="bodySmall" color="secondary">
          Rendered with Grafana's component libraries from live data; not a Grafana screenshot.
        </Text>
      </Box>
    </div>
  );
}

// What a reader of the image could not see.
function notes() {
  const found = [];
  for (const box of document.querySelectorAll('[data-title]')) {
    const unseen = [...box.querySelectorAll('*')].some((one) => {
      const { overflowX, overflowY } = getComputedStyle(one);
      const [right, down] = [one.scrollWidth - one.clientWidth, one.scrollHeight - one.clientHeight];
      return (
        (/auto|scroll/.test(overflowY) && down > 2) ||
        (/auto|scroll/.test(overflowX) && right > 2) ||
        (one.getAttribute('role') === 'gridcell' && right > 1)
      );
    });
    if (unseen) {
      found.push(`does not fit into its panel: ${box.dataset.title}`);
    }
    const heading = box.querySelector('h2');
    const words = document.createRange();
    words.selectNodeContents(heading);
    if (words.getBoundingClientRect().width > heading.getBoundingClientRect().width) {
      found.push(`title is cut off: ${box.dataset.title}`);
    }
  }
  return found;
}

// The program that opened this page reads it.
const result = { errors: [] };

function say(more) {
  document.getElementById('result').textContent = JSON.stringify(Object.assign(result, more));
}

function failed(error) {
  say({ errors: [...result.errors, String(error)] });
}

async function start() {
  // Under the name by which Grafana's components draw and measure their texts.
  document.fonts.add(await new FontFace('Inter', `url(${inter})`, { weight: '100 900' }).load());
  const drawn = await Promise.all(
    content.panels.map(async (given) => {
      const panel = { options: {}, ...given, fieldConfig: completed(given.fieldConfig) };
      return { panel, frames: panel.answers ? await framesOf(panel, theme) : [] };
    }),
  );
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <MemoryRouter>
        <Page drawn={drawn} />
      </MemoryRouter>
    </ThemeContext.Provider>,
  );
  await new Promise((done) => setTimeout(done, 1500));
  const undrawn = [...document.querySelectorAll('.undrawn')];
  say({
    height: Math.ceil(document.querySelector('.page').getBoundingClientRect().height),
    notes: notes(),
    undrawn: undrawn.map((one) => [one.closest('[data-title]').dataset.title, one.textContent]),
  });
}

window.addEventListener('error', ({ message }) => failed(message));
start().catch(failed);
