{{- define "rekindle-agent.labels" -}}
app.kubernetes.io/name: rekindle-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
