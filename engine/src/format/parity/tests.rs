use super::*;

fn member(size: u64, id: u8) -> Member {
    Member { kind: ObjectKind::Pack, epoch: 3, size, id: ObjectId([id; 32]) }
}

fn sample(layout: Layout) -> (Plan, Vec<u8>) {
    let members = match layout {
        Layout::Inside => vec![member(1000, 1)],
        Layout::Across => vec![member(1000, 1), member(130, 2), member(64, 3)],
    };
    let plan = Plan { repo: RepoId([2; 16]), epoch: 3, layout, shard: 128, parity: 2, members };
    let (listed, shards) = match layout {
        Layout::Inside => (8 + 2, 2 * 128),
        Layout::Across => (8 + 2 + 1 + 8 * 2, 8 * 2 * 128),
    };
    let hashes: Vec<ShardHash> = (0..listed).map(|n| [n; HASH_LEN]).collect();
    let bytes = assemble(plan.clone(), &hashes, &vec![7; shards]).expect("assembles");
    (plan, bytes)
}

fn read(bytes: &[u8], from_end: bool) -> Result<(Table, Vec<ShardHash>), FormatError> {
    let range = |at: u64, length: usize| {
        let at = usize::try_from(at).expect("small");
        let (start, end) = if from_end { (bytes.len() - at - length, bytes.len() - at) } else { (at, at + length) };
        bytes.get(start..end).expect("in the object")
    };
    let header = range(0, HEADER_LEN);
    let table = Table::parse(header, range(64, table_len(header)?))?;
    let list = table.parse_list(range(table.list_at(), table.list_len()))?;
    Ok((table, list))
}

#[test]
fn both_copies_read_back() {
    for layout in [Layout::Inside, Layout::Across] {
        let (plan, bytes) = sample(layout);
        for from_end in [false, true] {
            let (table, list) = read(&bytes, from_end).expect("reads");
            assert_eq!(table.members, plan.members);
            assert_eq!((table.repo, table.epoch, table.layout), (plan.repo, plan.epoch, plan.layout));
            assert_eq!((table.shard, table.parity, table.object_size()), (128, 2, bytes.len() as u64));
            assert!(layout == Layout::Across || Table::size_inside(128, 8, 2) == table.object_size());
            assert!(list.iter().enumerate().all(|(n, hash)| usize::from(hash[0]) == n));
        }
    }
}

#[test]
fn a_flip_in_one_copy_is_found_and_leaves_the_other() {
    let (_, good) = sample(Layout::Across);
    let copy = usize::try_from(read(&good, false).expect("reads").0.shards_at()).expect("small");
    for bit in 0..copy * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad, false).is_err(), "bit {bit}");
        assert!(read(&bad, true).is_ok(), "bit {bit}");
    }
}

#[test]
fn what_breaks_the_rules_is_refused_though_its_check_is_right() {
    let (plan, _) = sample(Layout::Inside);
    let refused = |change: &dyn Fn(&mut Table)| {
        let Plan { repo, epoch, layout, shard, parity, members } = plan.clone();
        let mut table = Table { repo, epoch, layout, shard, parity, members, list: [0; 32] };
        assert!(Table::parse(&table.to_bytes().expect("encodes").0, &table.to_bytes().expect("encodes").1).is_ok());
        change(&mut table);
        let (header, bytes) = table.to_bytes().expect("encodes");
        Table::parse(&header, &bytes).expect_err("is refused");
    };
    refused(&|t| t.shard = 0);
    refused(&|t| t.shard = 100);
    refused(&|t| t.shard = MAX_SHARD + 64);
    refused(&|t| t.parity = 0);
    refused(&|t| t.parity = 9);
    refused(&|t| t.members.clear());
    refused(&|t| t.members.push(member(64, 5)));
    refused(&|t| t.members[0].size = 0);
    refused(&|t| t.members[0].size = u64::MAX);
    refused(&|t| t.members[0].kind = ObjectKind::Session);
    refused(&|t| (t.members, t.layout) = (vec![member(MAX_PACK, 1); MAX_MEMBERS], Layout::Across));
}

#[test]
fn a_short_shard_counts_as_filled_up() {
    assert_eq!(shard_hash(b"abc", 8192), shard_hash(&[b"abc", &[0; 8189][..]].concat(), 8192));
    assert_eq!(shard_hash(b"", 64), shard_hash(&[0; 64], 64));
}
