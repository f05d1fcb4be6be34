BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE api_keys (
	id VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	scopes JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	revoked_at DATETIME, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_sha256 UNIQUE (sha256)
);
CREATE TABLE artifacts (
	id VARCHAR(255) NOT NULL, 
	job_id VARCHAR(255), 
	output VARCHAR(255) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	name VARCHAR(255), 
	version INTEGER, 
	uri TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	bytes BIGINT NOT NULL, 
	manifest JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (id), 
	CONSTRAINT fk_artifacts_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "artifacts" VALUES('art_01m8n2bbjgj61c7j8z3s8d1kmy','job_01m8n2bbfr30smb1xfd4dnxfta','model','model','done',1,'file:///srv/reason/artifacts/ab','abababababababababababababababababababababababababababababababab',1234,'{"files": [], "metadata": {"base_model": "x"}}','2026-11-30 01:50:42.250064');
CREATE TABLE dependencies (
	job_id VARCHAR(255) NOT NULL, 
	depends_on VARCHAR(255) NOT NULL, 
	CONSTRAINT pk_dependencies PRIMARY KEY (job_id, depends_on), 
	CONSTRAINT fk_dependencies_depends_on FOREIGN KEY(depends_on) REFERENCES jobs (id), 
	CONSTRAINT fk_dependencies_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "dependencies" VALUES('job_01m8n2bbkfrfz09b3qbx0h1zzx','job_01m8n2bbkbbsgxd1ve6get34wy');
CREATE TABLE events (
	job_id VARCHAR(255) NOT NULL, 
	seq INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	type VARCHAR(16) NOT NULL, 
	at DATETIME NOT NULL, 
	data JSON NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (job_id, seq), 
	CONSTRAINT fk_events_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',1,0,'state','2026-11-30 01:50:42.135257','{"state": "queued", "attempt": 0}');
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',2,1,'state','2026-11-30 01:50:42.224876','{"state": "running", "attempt": 1}');
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',3,1,'phase','2026-11-30 01:50:42.226809','{"phase": "training"}');
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',4,1,'metric','2026-11-30 01:50:42.226821','{"step": 1, "values": {"loss": 0.5}}');
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',5,1,'notice','2026-11-30 01:50:42.226823','{"level": "info", "message": "Lengths: ..."}');
INSERT INTO "events" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',6,1,'state','2026-11-30 01:50:42.263827','{"state": "succeeded", "attempt": 1, "reason": "succeeded", "message": "The job is done."}');
INSERT INTO "events" VALUES('job_01m8n2bbjw0h39gc13k99xc2c2',1,0,'state','2026-11-30 01:50:42.267582','{"state": "queued", "attempt": 0}');
INSERT INTO "events" VALUES('job_01m8n2bbjw0h39gc13k99xc2c2',2,1,'state','2026-11-30 01:50:42.272611','{"state": "running", "attempt": 1}');
INSERT INTO "events" VALUES('job_01m8n2bbjw0h39gc13k99xc2c2',3,1,'state','2026-11-30 01:50:42.280833','{"state": "failed", "attempt": 1, "reason": "bad_data", "message": "rows.jsonl:3: no query"}');
INSERT INTO "events" VALUES('job_01m8n2bbkbbsgxd1ve6get34wy',1,0,'state','2026-11-30 01:50:42.282567','{"state": "queued", "attempt": 0}');
INSERT INTO "events" VALUES('job_01m8n2bbkfrfz09b3qbx0h1zzx',1,0,'state','2026-11-30 01:50:42.286495','{"state": "waiting", "attempt": 0}');
CREATE TABLE idempotency_keys (
	owner VARCHAR(255) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	job_id VARCHAR(255) NOT NULL, 
	request_sha256 VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_idempotency_keys PRIMARY KEY (owner, "key"), 
	CONSTRAINT fk_idempotency_keys_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "idempotency_keys" VALUES('','key','job_01m8n2bbfr30smb1xfd4dnxfta','0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE jobs (
	id VARCHAR(255) NOT NULL, 
	kind VARCHAR(255) NOT NULL, 
	name VARCHAR(255), 
	labels JSON NOT NULL, 
	spec JSON NOT NULL, 
	spec_version INTEGER NOT NULL, 
	owner VARCHAR(255), 
	state VARCHAR(16) NOT NULL, 
	priority INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	wants_gpu VARCHAR(8) NOT NULL, 
	gpu_memory_bytes BIGINT, 
	not_before DATETIME NOT NULL, 
	attempt INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	max_attempts INTEGER NOT NULL, 
	lease_token VARCHAR(64), 
	lease_expires_at DATETIME, 
	worker VARCHAR(255), 
	cancel_requested BOOLEAN NOT NULL, 
	pause_requested BOOLEAN NOT NULL, 
	phase VARCHAR(255), 
	progress JSON NOT NULL, 
	latest JSON NOT NULL, 
	memory JSON NOT NULL, 
	inputs JSON NOT NULL, 
	outputs JSON NOT NULL, 
	end_code VARCHAR(64), 
	end_message TEXT, 
	event_seq INTEGER NOT NULL, 
	log_seq INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_jobs PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta','train','done','{"team": "search"}','{"name": "done", "labels": {"team": "search"}, "priority": 0, "resources": {"gpus": "auto", "gpu_memory_gb": "auto"}, "max_attempts": 3, "timeout_seconds": null, "depends_on": [], "kind": "train", "family": "dense", "base_model": "file:/srv/reason/model", "dataset": {"ref": "file:/srv/reason/rows.jsonl", "split": null, "name": null}, "evaluation": {"datasets": [], "metrics": ["ndcg@10", "mrr@10", "recall@10"], "baseline": true, "every_steps": null, "early_stopping": null}, "loss": {"name": "mnrl", "temperature": 0.05, "symmetric": false, "cached": "auto"}, "epochs": 1.0, "max_steps": null, "batch_size": 8, "gradient_accumulation_steps": 1, "micro_batch_tokens": "auto", "learning_rate": 5e-05, "warmup_ratio": 0.1, "scheduler": "linear", "optimizer": "adamw", "weight_decay": 0.01, "max_gradient_norm": 1.0, "lengths": {"query": "auto", "document": "auto", "percentile": 0.95}, "precision": "auto", "lora": null, "quantization": null, "gradient_checkpointing": false, "compile": false, "prompts": {"query": null, "document": null}, "sample": null, "data_loader_workers": 0, "logging_steps": 10, "checkpoint": {"every_steps": 500, "every_seconds": 300.0, "keep": 2}, "max_reject_share": 0.01, "seed": 42}',1,NULL,'succeeded',0,0,'auto',NULL,'2026-11-30 01:50:42.135257',1,0,3,NULL,NULL,'w',0,0,NULL,'{}','{"loss": 0.5}','{}','{}','{"model": "model:art_01m8n2bbjgj61c7j8z3s8d1kmy"}','succeeded','The job is done.',6,1,'2026-11-30 01:50:42.135257','2026-11-30 01:50:42.187898','2026-11-30 01:50:42.260258');
INSERT INTO "jobs" VALUES('job_01m8n2bbjw0h39gc13k99xc2c2','train','failed','{}','{"name": "failed", "labels": {}, "priority": 0, "resources": {"gpus": "auto", "gpu_memory_gb": "auto"}, "max_attempts": 3, "timeout_seconds": null, "depends_on": [], "kind": "train", "family": "dense", "base_model": "file:/srv/reason/model", "dataset": {"ref": "file:/srv/reason/rows.jsonl", "split": null, "name": null}, "evaluation": {"datasets": [], "metrics": ["ndcg@10", "mrr@10", "recall@10"], "baseline": true, "every_steps": null, "early_stopping": null}, "loss": {"name": "mnrl", "temperature": 0.05, "symmetric": false, "cached": "auto"}, "epochs": 1.0, "max_steps": null, "batch_size": 8, "gradient_accumulation_steps": 1, "micro_batch_tokens": "auto", "learning_rate": 5e-05, "warmup_ratio": 0.1, "scheduler": "linear", "optimizer": "adamw", "weight_decay": 0.01, "max_gradient_norm": 1.0, "lengths": {"query": "auto", "document": "auto", "percentile": 0.95}, "precision": "auto", "lora": null, "quantization": null, "gradient_checkpointing": false, "compile": false, "prompts": {"query": null, "document": null}, "sample": null, "data_loader_workers": 0, "logging_steps": 10, "checkpoint": {"every_steps": 500, "every_seconds": 300.0, "keep": 2}, "max_reject_share": 0.01, "seed": 42}',1,NULL,'failed',0,0,'auto',NULL,'2026-11-30 01:50:42.267582',1,0,3,NULL,NULL,'w',0,0,NULL,'{}','{}','{}','{}','{}','bad_data','rows.jsonl:3: no query',3,0,'2026-11-30 01:50:42.267582','2026-11-30 01:50:42.270741','2026-11-30 01:50:42.274958');
INSERT INTO "jobs" VALUES('job_01m8n2bbkbbsgxd1ve6get34wy','train','queued','{}','{"name": "queued", "learning_rate_decay": 0.5, "labels": {}, "priority": 0, "resources": {"gpus": "auto", "gpu_memory_gb": "auto"}, "max_attempts": 3, "timeout_seconds": null, "depends_on": [], "kind": "train", "family": "dense", "base_model": "file:/srv/reason/model", "dataset": {"ref": "file:/srv/reason/rows.jsonl", "split": null, "name": null}, "evaluation": {"datasets": [], "metrics": ["ndcg@10", "mrr@10", "recall@10"], "baseline": true, "every_steps": null, "early_stopping": null}, "loss": {"name": "mnrl", "temperature": 0.05, "symmetric": false, "cached": "auto"}, "epochs": 1.0, "max_steps": null, "batch_size": 8, "gradient_accumulation_steps": 1, "micro_batch_tokens": "auto", "learning_rate": 5e-05, "warmup_ratio": 0.1, "scheduler": "linear", "optimizer": "adamw", "weight_decay": 0.01, "max_gradient_norm": 1.0, "lengths": {"query": "auto", "document": "auto", "percentile": 0.95}, "precision": "auto", "lora": null, "quantization": null, "gradient_checkpointing": false, "compile": false, "prompts": {"query": null, "document": null}, "sample": null, "data_loader_workers": 0, "logging_steps": 10, "checkpoint": {"every_steps": 500, "every_seconds": 300.0, "keep": 2}, "max_reject_share": 0.01, "seed": 42}',1,NULL,'queued',0,0,'auto',NULL,'2026-11-30 01:50:42.282567',0,0,3,NULL,NULL,NULL,0,0,NULL,'{}','{}','{}','{}','{}',NULL,NULL,1,0,'2026-11-30 01:50:42.282567',NULL,NULL);
INSERT INTO "jobs" VALUES('job_01m8n2bbkfrfz09b3qbx0h1zzx','train','waiting','{}','{"name": "waiting", "labels": {}, "priority": 0, "resources": {"gpus": "auto", "gpu_memory_gb": "auto"}, "max_attempts": 3, "timeout_seconds": null, "depends_on": [], "kind": "train", "family": "dense", "base_model": "job:job_01m8n2bbkbbsgxd1ve6get34wy/model", "dataset": {"ref": "file:/srv/reason/rows.jsonl", "split": null, "name": null}, "evaluation": {"datasets": [], "metrics": ["ndcg@10", "mrr@10", "recall@10"], "baseline": true, "every_steps": null, "early_stopping": null}, "loss": {"name": "mnrl", "temperature": 0.05, "symmetric": false, "cached": "auto"}, "epochs": 1.0, "max_steps": null, "batch_size": 64, "gradient_accumulation_steps": 1, "micro_batch_tokens": "auto", "learning_rate": 5e-05, "warmup_ratio": 0.1, "scheduler": "linear", "optimizer": "adamw", "weight_decay": 0.01, "max_gradient_norm": 1.0, "lengths": {"query": "auto", "document": "auto", "percentile": 0.95}, "precision": "auto", "lora": null, "quantization": null, "gradient_checkpointing": false, "compile": false, "prompts": {"query": null, "document": null}, "sample": null, "data_loader_workers": 0, "logging_steps": 10, "checkpoint": {"every_steps": 500, "every_seconds": 300.0, "keep": 2}, "max_reject_share": 0.01, "seed": 42}',1,NULL,'waiting',0,0,'auto',NULL,'2026-11-30 01:50:42.286495',0,0,3,NULL,NULL,NULL,0,0,NULL,'{}','{}','{}','{}','{}',NULL,NULL,1,0,'2026-11-30 01:50:42.286495',NULL,NULL);
CREATE TABLE log_chunks (
	job_id VARCHAR(255) NOT NULL, 
	seq INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	content TEXT NOT NULL, 
	bytes INTEGER NOT NULL, 
	CONSTRAINT pk_log_chunks PRIMARY KEY (job_id, seq), 
	CONSTRAINT fk_log_chunks_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "log_chunks" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta',1,1,'a line
',7);
CREATE TABLE metrics (
	job_id VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	step INTEGER NOT NULL, 
	value FLOAT, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_metrics PRIMARY KEY (job_id, name, step), 
	CONSTRAINT fk_metrics_job_id FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "metrics" VALUES('job_01m8n2bbfr30smb1xfd4dnxfta','loss',1,0.5,'2026-11-30 01:50:42.226782');
CREATE TABLE workers (
	id VARCHAR(255) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	slots INTEGER NOT NULL, 
	gpus JSON NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	queues JSON NOT NULL, 
	started_at DATETIME NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	stopping BOOLEAN NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_jobs_claim ON jobs (state, rank, id);
CREATE INDEX ix_jobs_kind ON jobs (kind, id);
CREATE INDEX ix_artifacts_job_id ON artifacts (job_id);
CREATE INDEX ix_artifacts_sha256 ON artifacts (sha256);
CREATE UNIQUE INDEX uq_artifacts_version ON artifacts (kind, name, version);
CREATE INDEX ix_dependencies_depends_on ON dependencies (depends_on);
COMMIT;
