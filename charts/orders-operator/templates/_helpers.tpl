{{/* The name of every object of the chart: that of the release, followed by that of the chart unless it contains it. */}}
{{- define "orders-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that select the operator pod. They must never change: a Deployment's selector is immutable. */}}
{{- define "orders-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The labels of every object of the chart. */}}
{{- define "orders-operator.labels" -}}
{{ include "orders-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The Lease of the controllers' leader election. */}}
{{- define "orders-operator.leaseName" -}}
{{- printf "%s-controller" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{/* The prefix of the names of the sweepers' Leases. */}}
{{- define "orders-operator.sweeperLeaseName" -}}
{{- printf "%s-sweeper" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{- define "orders-operator.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Environment variables of both containers. */}}
{{- define "orders-operator.logEnv" -}}
- {name: LOG_LEVEL, value: {{ .Values.log.level | quote }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format | quote }}}
{{- with .Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.watchNamespaces }}
- {name: WATCH_NAMESPACE, value: {{ join "," . | quote }}}
{{- end }}
{{- end -}}

{{- define "orders-operator.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 10
{{- end -}}

{{- define "orders-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}
