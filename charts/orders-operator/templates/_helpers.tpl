{{/* The name of every object of the chart: that of the release, followed by that of the chart unless it contains it. */}}
{{- define "orders-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The operator's pods: one kind with both containers, or one for each. Every object of a pod has its suffix. */}}
{{- define "orders-operator.pods" -}}
pods:
{{- if .Values.sweeper.separate }}
  - {suffix: "", replicas: {{ .Values.replicas }}, containers: [controller]}
  - {suffix: -sweeper, replicas: {{ .Values.sweeper.replicas }}, containers: [sweeper]}
{{- else }}
  - {suffix: "", replicas: {{ .Values.replicas }}, containers: [controller, sweeper]}
{{- end }}
{{- end -}}

{{/* The labels that select the pods of a suffix. They must never change: a Deployment's selector is immutable. Takes a list: the root, the suffix. */}}
{{- define "orders-operator.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* The labels of the objects of a suffix. Takes a list: the root, the suffix. */}}
{{- define "orders-operator.labelsOf" -}}
{{ include "orders-operator.selectorLabels" . }}
{{ include "orders-operator.commonLabels" (index . 0) }}
{{- end -}}

{{/* The labels of the objects of no pod, or of the first. */}}
{{- define "orders-operator.labels" -}}
{{ include "orders-operator.labelsOf" (list . "") }}
{{- end -}}

{{- define "orders-operator.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The Lease of the controllers' leader election. */}}
{{- define "orders-operator.leaseName" -}}
{{- printf "%s-controller" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{/* The Lease by which the sweepers know each other. */}}
{{- define "orders-operator.sweeperLeaseName" -}}
{{- printf "%s-sweeper" (include "orders-operator.fullname" .) -}}
{{- end -}}

{{- define "orders-operator.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* Where a container finds the token of its service account: at no usual path, and at another than its neighbour. */}}
{{- define "orders-operator.accountPath" -}}
/var/run/secrets/orders-operator/{{ . }}
{{- end -}}

{{/* Environment variables of both containers. */}}
{{- define "orders-operator.commonEnv" -}}
- {name: LISTEN_ADDRESS, value: {{ .Values.listenAddress | quote }}}
- {name: LOG_LEVEL, value: {{ .Values.log.level | quote }}}
- {name: LOG_FORMAT, value: {{ .Values.log.format | quote }}}
{{- with .Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if include "orders-operator.otlpCa" . }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/orders-operator/otlp/ca.crt}
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


{{/* A volume with the token of the pod's service account, for one container; the kubelet renews it. */}}
{{- define "orders-operator.accountVolume" -}}
- name: {{ . }}-account
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* The source of the volume with the CA of the OTLP endpoint, if there is one. */}}
{{- define "orders-operator.otlpCa" -}}
{{- $items := list (dict "key" .Values.otlp.ca.key "path" "ca.crt") -}}
{{- if and .Values.otlp.ca.configMap .Values.otlp.ca.secret -}}
{{- fail "otlp.ca.configMap and otlp.ca.secret are both set: remove one" -}}
{{- else if .Values.otlp.ca.configMap -}}
configMap: {{ dict "name" .Values.otlp.ca.configMap "items" $items | toJson }}
{{- else if .Values.otlp.ca.secret -}}
secret: {{ dict "secretName" .Values.otlp.ca.secret "items" $items | toJson }}
{{- end -}}
{{- end -}}

{{/* What both containers have in common. Takes a list: the root, the container, its resources. */}}
{{- define "orders-operator.container" -}}
{{- $root := index . 0 }}{{ $name := index . 1 -}}
image: {{ include "orders-operator.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ $name }}]
ports:
  - {name: {{ $name }}, containerPort: {{ ternary 8081 8082 (eq $name "controller") }}, protocol: TCP}
{{ include "orders-operator.probes" $name }}
resources: {{- toYaml (index . 2) | nindent 2 }}
securityContext: {{- include "orders-operator.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: {{ $name }}-account, mountPath: {{ include "orders-operator.accountPath" $name }}, readOnly: true}
  {{- if and $root.Values.controller.hosts (eq $name "controller") }}
  # The whole folder: a single file of a ConfigMap would never change.
  - {name: hosts, mountPath: /etc/orders-operator/hosts, readOnly: true}
  {{- end }}
  {{- if include "orders-operator.otlpCa" $root }}
  - {name: otlp-ca, mountPath: /etc/orders-operator/otlp, readOnly: true}
  {{- end }}
{{- end -}}
