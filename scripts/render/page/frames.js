// What Prometheus answered, as the data frames that Grafana's components draw.

import {
  applyFieldOverrides,
  FieldConfigOptionsRegistry,
  FieldType,
  standardTransformers,
  standardTransformersRegistry,
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
  const several = answers.length > 1;
  let frames = answers.flatMap((answer) =>
    answer.format === 'table' ? tableFrames(answer, several) : seriesFrames(answer, panel.type),
  );
  if (panel.transformations?.length) {
    frames = await firstValueFrom(
      transformDataFrame(
        panel.transformations.filter((one) => !one.disabled),
        frames,
      ),
    );
  }
  return applyFieldOverrides({
    data: frames,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registryFor(panel.fieldConfig),
    replaceVariables: (text) => text,
    theme,
    timeZone: TIME_ZONE,
  });
}

function seriesFrames(answer, kind) {
  return answer.series.map(({ metric, values }) => {
    const { __name__: name, ...labels } = metric;
    const config = {};
    if (answer.legend && answer.legend !== '__auto') {
      config.displayNameFromDS = legend(answer.legend, metric);
    } else if (!Object.keys(metric).length) {
      config.displayNameFromDS = answer.expr;
    }
    // A line has a gap where there is no number; a tile may have a word for it.
    const number = (text) => {
      const value = Number(text.replace('Inf', 'Infinity'));
      return Number.isNaN(value) && kind !== 'stat' ? null : value;
    };
    return {
      refId: answer.refId,
      length: values.length,
      fields: [
        {
          name: 'Time',
          type: FieldType.time,
          config: answer.instant ? {} : { interval: answer.step },
          values: values.map(([time]) => time * 1000),
        },
        {
          name: name ?? 'Value',
          type: FieldType.number,
          config,
          labels,
          values: values.map(([, value]) => number(value)),
        },
      ],
    };
  });
}

function tableFrames(answer, several) {
  if (!answer.series.length) {
    return [];
  }
  const rows = answer.series.flatMap(({ metric, values }) =>
    values.map(([time, value]) => ({ metric, time: time * 1000, value: Number(value) })),
  );
  const names = [...new Set(rows.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const column = (name, type, values) => ({ name, type, config: {}, values });
  return [
    {
      refId: answer.refId,
      length: rows.length,
      fields: [
        column('Time', FieldType.time, rows.map(({ time }) => time)),
        ...names.map((name) =>
          column(name, FieldType.string, rows.map(({ metric }) => metric[name] ?? '')),
        ),
        column(
          several ? `Value #${answer.refId}` : 'Value',
          FieldType.number,
          rows.map(({ value }) => value),
        ),
      ],
    },
  ];
}

function legend(format, metric) {
  return format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? '');
}

// What Grafana adds on loading. JSON has no infinity: the lowest threshold is written as null.
export function completed(fieldConfig) {
  const lowest = (thresholds) => ({
    ...thresholds,
    steps: thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })),
  });
  const { defaults = {}, overrides = [] } = structuredClone(fieldConfig ?? {});
  defaults.thresholds = lowest(
    defaults.thresholds ?? { mode: 'absolute', steps: [{ color: 'green', value: null }] },
  );
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
  const custom = new Set([
    ...Object.keys(defaults.custom ?? {}),
    ...set.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length)),
  ]);
  const item = (path, isCustom) => ({
    id: isCustom ? `custom.${path}` : path,
    path,
    name: path,
    isCustom,
    process: (value) => value,
    shouldApply: () => true,
  });
  return new FieldConfigOptionsRegistry(() => [
    ...STANDARD.map((path) => item(path, false)),
    ...[...custom].map((path) => item(path, true)),
  ]);
}
