-- A study as Optuna 2.10.1 stores it: three trials complete, one interrupted; their values are beta squared.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'neg_elbo');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'beta.value',3.60818379905703867649e+00,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 4.0}}');
INSERT INTO "trial_params" VALUES(2,1,'latent_dim.value',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 10]}}');
INSERT INTO "trial_params" VALUES(3,1,'trainer.patience',3.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 5, "step": 1}}');
INSERT INTO "trial_params" VALUES(4,1,'optimizer.lr',7.90141133724400236693e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(5,2,'beta.value',1.06626896829604689287e+00,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 4.0}}');
INSERT INTO "trial_params" VALUES(6,2,'latent_dim.value',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 10]}}');
INSERT INTO "trial_params" VALUES(7,2,'trainer.patience',4.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 5, "step": 1}}');
INSERT INTO "trial_params" VALUES(8,2,'optimizer.lr',7.84426718871070486824e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(9,3,'beta.value',2.44748328320756947107e+00,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 4.0}}');
INSERT INTO "trial_params" VALUES(10,3,'latent_dim.value',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 10]}}');
INSERT INTO "trial_params" VALUES(11,3,'trainer.patience',4.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 5, "step": 1}}');
INSERT INTO "trial_params" VALUES(12,3,'optimizer.lr',0.00478896967400464,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(13,4,'beta.value',2.71076307838776520142e+00,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 4.0}}');
INSERT INTO "trial_params" VALUES(14,4,'latent_dim.value',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 10]}}');
INSERT INTO "trial_params" VALUES(15,4,'trainer.patience',1.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 5, "step": 1}}');
INSERT INTO "trial_params" VALUES(16,4,'optimizer.lr',7.00480315992262590751e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.30189903277776846128e+01);
INSERT INTO "trial_values" VALUES(2,2,0,1.13692951275111631126e+00);
INSERT INTO "trial_values" VALUES(3,3,0,5.99017442158050350542e+00);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-29 20:24:34.113671','2026-11-29 20:24:34.247648');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 20:24:34.277778','2026-11-29 20:24:34.417635');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-29 20:24:34.442079','2026-11-29 20:24:34.575582');
INSERT INTO "trials" VALUES(4,3,1,'RUNNING','2026-11-29 20:24:34.601803',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
