// What Prometheus answered, as the data frames that Grafana's components draw.

import {
  applyFieldOverrides,
  FieldConfigOptionsRegistry,
  FieldType,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

export const TIME_ZONE = 'utc';

standardTransformersRegistry.setInit(() => {
  // One of them is listed twice, under its old name as well.
  const known = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
  return [...known.values()].map((one) => ({ id: one.id, name: one.name, transformation: one }));
});

export async function framesOf(panel, theme) {
  const answers = panel.answers.filter((answer) => !answer.error);
  const frames = answers.flatMap((answer) =>
    answer.format === 'table' ? tableFrames(answer, answers.length > 1) : seriesFrames(answer, panel.type),
  );
  const transformed = transformDataFrame(panel.transformations ?? [], frames);
  return applyFieldOverrides({
    data: await firstValueFrom(transformed),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registryFor(panel.fieldConfig),
    replaceVariables: (text) => text,
    theme,
    timeZone: TIME_ZONE,
  });
}

function seriesFrames({ refId, series, legend, expr, instant, step }, kind) {
  // A line has a gap where there is no number; a tile may have a word for it.
  const number = (text) => {
    const value = Number(text.replace('Inf', 'Infinity'));
    return Number.isNaN(value) && kind !== 'stat' ? null : value;
  };
  return series.map(({ metric, values }) => {
    const { __name__: name = 'Value', ...labels } = metric;
    const time = { config: instant ? {} : { interval: step }, values: values.map(([at]) => at * 1000) };
    const config = {};
    if (legend && legend !== '__auto') {
      config.displayNameFromDS = legend.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? '');
    } else if (!Object.keys(metric).length) {
      config.displayNameFromDS = expr;
    }
    const value = { name, config, labels, values: values.map(([, text]) => number(text)) };
    return toDataFrame({
      refId,
      fields: [{ name: 'Time', type: FieldType.time, ...time }, { type: FieldType.number, ...value }],
    });
  });
}

function tableFrames({ refId, series }, several) {
  const rows = series.flatMap(({ metric, values }) => values.map(([time, value]) => ({ metric, time, value })));
  const names = [...new Set(rows.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name, type, of) => ({ name, type, values: rows.map(of) });
  const labels = names.map((name) => column(name, FieldType.string, ({ metric }) => metric[name] ?? ''));
  const time = column('Time', FieldType.time, (row) => row.time * 1000);
  const value = column(several ? `Value #${refId}` : 'Value', FieldType.number, (row) => Number(row.value));
  return rows.length ? [toDataFrame({ refId, fields: [time, ...labels, value] })] : [];
}

// What Grafana adds on loading. JSON has no infinity: the lowest threshold is written as null.
export function completed(fieldConfig) {
  const lowest = (thresholds) => ({
    ...thresholds,
    steps: thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })),
  });
  const { defaults = {}, overrides = [] } = structuredClone(fieldConfig ?? {});
  const usual = { mode: 'absolute', steps: [{ color: 'green', value: null }] };
  defaults.thresholds = lowest(defaults.thresholds ?? usual);
  for (const property of overrides.flatMap((one) => one.properties)) {
    if (property.id === 'thresholds') {
      property.value = lowest(property.value);
    }
  }
  return { defaults, overrides };
}

const STANDARD = [
  'unit', 'min', 'max', 'decimals', 'displayName', 'color', 'noValue', 'thresholds', 'mappings',
  'links', 'description', 'filterable', 'fieldMinMax', 'actions',
];

// The registries of Grafana's panels are not in its libraries. What a panel sets is what it has.
function registryFor({ defaults, overrides }) {
  const set = overrides.flatMap((one) => one.properties.map(({ id }) => id));
  const custom = Object.keys(defaults.custom ?? {}).map((path) => `custom.${path}`);
  const known = new Set([...STANDARD, ...custom, ...set.filter((id) => id.startsWith('custom.'))]);
  const item = (id) => ({
    id,
    path: id.replace(/^custom\./, ''),
    name: id,
    isCustom: id.startsWith('custom.'),
    process: (value) => value,
    shouldApply: () => true,
  });
  return new FieldConfigOptionsRegistry(() => [...known].map(item));
}
