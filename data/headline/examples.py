"""An ordinary use of each Python function of the pairs, by name: setup and an expression.

Both halves of a pair have to give the same value; `check.py` runs them in an empty folder.  Where the expression
has DB, a SQLite database in memory, the setup is its table: "name(columns): first row; second row".
"""

EXAMPLES = {
    # cwe-089
    "guest_rooms": ("rooms(number, guest): 7 Ann; 9 Bo", "guest_rooms(DB, 'Ann')"),
    "rename_dish": (
        "menu(dish): soup; pie",
        "(rename_dish(DB, 'pie', 'tart'), DB.execute('SELECT dish FROM menu').fetchall())",
    ),
    "remove_contacts": (
        "contacts(nickname): jo; al",
        "(remove_contacts(DB, ['jo']), DB.execute('SELECT * FROM contacts').fetchall())",
    ),
    "add_species": (
        "species(number, latin, common): 1 felis cat",
        "(add_species(DB.cursor(), 'felis', 'cat'), add_species(DB.cursor(), 'canis', 'dog'))",
    ),
    "is_registered": ("pupils(pupil_id): a1; b2", "(is_registered(DB, 'a1'), is_registered(DB, 'zz'))"),
    "flights_between": (
        "flights(code, origin, destination): LH1 FRA OSL; LH2 OSL FRA",
        "flights_between(DB, 'FRA', 'OSL')",
    ),
    "total_weight": (
        "cargo(container, weight): c1 5; c1 6; c2 7",
        "(total_weight(DB, 'c1'), total_weight(DB, 'c9'))",
    ),
    "articles_by_author": ("articles(headline, author, day): Old Roe 1; New Roe 2; Else Poe 3",
                           "(articles_by_author(DB, 'Roe'), articles_by_author(DB, 'Roe', '2'))"),
    "set_quota": (
        "tenants(tenant, quota): t1 1; t2 1",
        "(set_quota(DB, 't2', 5), DB.execute('SELECT quota FROM tenants').fetchall())",
    ),
    "bus_stops": (
        "stops(line, direction, stop, position): 4 out Park 2; 4 out Town 1; 4 in Sea 1",
        "bus_stops(DB, '4')",
    ),
    "archive_ticket": ("tickets(id, state, reason): 1 open none; 2 open none",
                       "(archive_ticket(DB, 2, 'done'), DB.execute('SELECT * FROM tickets').fetchall())"),
    "species_in_region": (
        "sightings(bird, region, times): owl n 3; jay n 1; tit s 9",
        "species_in_region(DB, 'n', 2)",
    ),
    # cwe-078
    "ping_host": ("", "callable(ping_host)"),
    "file_kinds": ("", "file_kinds([])"),
    "remove_scratch": (
        "os.mkdir('s'); open('s/a', 'w').close()",
        "(remove_scratch('s'), os.path.exists('s'), remove_scratch('t'))",
    ),
    "compress_log": ("open('x.log', 'w').write('a')", "(compress_log('x.log'), os.listdir('.'))"),
    "lookup_domain": ("", "lookup_domain('localhost') != []"),
    "show_calendar": ("", "callable(show_calendar)"),
    "compare_versions": (
        "open('a', 'w').write('1\\n'); open('b', 'w').write('2\\n')",
        "compare_versions('a', 'b').splitlines()[2:]",
    ),
    "make_archive": ("open('a', 'w').close()", "(make_archive('x.tar', ['a']), os.path.exists('x.tar'))"),
    "notify": ("", "callable(notify)"),
    "words_in": ("open('a', 'w').write('one two')", "words_in('a')"),
    "resize_picture": ("", "callable(resize_picture)"),
    "touch_marker": ("", "(touch_marker('t'), os.listdir('.'))"),
    # cwe-022
    "open_manual": ("os.mkdir('m'); open('m/a', 'w').write('x')", "open_manual('m', 'a')"),
    "keep_scan": ("os.mkdir('m')", "(keep_scan('m', 'a', [b'x', b'y']), open('m/a').read())"),
    "forget_model": (
        "os.mkdir('m'); open('m/a', 'w').close()",
        "(forget_model('m', 'a'), forget_model('m', 'b'), os.listdir('m'))",
    ),
    "lesson_text": (
        "os.mkdir('m'); open('m/a', 'w').write('x')",
        "(lesson_text('m', 'a'), lesson_text('m', 'b'))",
    ),
    "songs_of": (
        "os.makedirs('m/abba'); open('m/abba/a.ogg', 'w').close(); open('m/abba/b.txt', 'w').close()",
        "songs_of('m', 'abba')",
    ),
    "widget_source": ("os.mkdir('widgets'); open('widgets/a.html', 'w').write('x')", "widget_source('a')"),
    "store_submission": (
        "os.mkdir('m')",
        "(store_submission('m', 'eva', 'a.txt', 'x'), open('m/eva/a.txt').read())",
    ),
    "map_tile": ("", "map_tile('roads', 7)"),
    "move_to_trash": (
        "os.makedirs('d/trash'); open('d/a', 'w').close()",
        "(move_to_trash('d', 'a'), os.listdir('d/trash'))",
    ),
    "preset_values": ("os.mkdir('m'); open('m/a', 'w').write('1 2\\n3')", "preset_values('m', 'a')"),
    "minutes_exist": (
        "os.mkdir('m'); open('m/a', 'w').close()",
        "(minutes_exist('m', 'a'), minutes_exist('m', 'b'))",
    ),
    "extract_fonts": (
        "import tarfile; os.mkdir('f'); open('a.ttf', 'w').write('x')\n"
        "with tarfile.open('x.tar', 'w') as t: t.add('a.ttf')",
        "(extract_fonts('x.tar', 'f'), os.listdir('f'))",
    ),
    # cwe-079
    "greet_page": ("", "greet_page('Ann')"),
    "image_tag": ("", "image_tag('a.png', 'A')"),
    "bullet_list": ("", "bullet_list(['a', 'b'])"),
    "review_card": ("", "review_card(3, 'good')"),
    "hidden_field": ("", "hidden_field('a', 'b')"),
    "weather_banner": ("", "weather_banner('Bern', 12)"),
    "definition_list": ("", "definition_list({'a': 'b'})"),
    "mailto": ("", "mailto('a@b.test', 'A')"),
    "quote_block": ("", "quote_block('a', 'b')"),
    "status_line": ("", "(status_line('db'), status_line('db', 'up'))"),
    "score_cells": ("", "score_cells('FC', 3)"),
    "textarea": ("", "textarea('a\\nb')"),
    # cwe-502
    "keep_wishes": ("", "(keep_wishes('f', ['a']), keep_wishes('f'))"),
    "wire_format": ("", "wire_format()[1](wire_format()[0]({'a': [1]}))"),
    "memoized_on_disk": ("", "(memoized_on_disk('f', lambda: 3), memoized_on_disk('f', lambda: 4))"),
    "note_score": ("", "(note_score('f', 'al', 3), note_score('f', 'bo', 4))"),
    "reprint": ("out = []", "reprint({'seat': 4}, out.append, lambda: out[0])"),
    "ask_service": ("out = []", "ask_service(out.append, lambda: out[0], {'q': 1})"),
    "keep_draft": (
        "drafts(slug, body):",
        "(keep_draft(DB, 'a', ['x']), keep_draft(DB, 'a'), keep_draft(DB, 'b'))",
    ),
    "squeezed_size": ("", "squeezed_size(None, squeezed_size([1, 2])[0])"),
    "toggle_flag": ("", "(toggle_flag('f', 'dark'), toggle_flag('f', 'dark'))"),
    "next_number": (
        "f = open('f', 'w+b')",
        "(next_number(f, 'A'), next_number(f, 'A'), next_number(f, 'B'))",
    ),
    "through_pipe": ("", "through_pipe({'a': 1})"),
    "undo_stack": ("s = []", "(undo_stack(s, {'a': 1}), undo_stack(s, [2]), undo_stack(s), undo_stack(s))"),
    # cwe-732
    "save_cookies": ("", "(save_cookies('f', {'a': '1', 'b': ''}), open('f').read())"),
    "write_pin_file": ("", "(write_pin_file('f', 12), write_pin_file('f', 13), open('f').read())"),
    "create_inbox": ("", "create_inbox('.', 'eva')"),
    "put_scripts": ("", "(put_scripts('.', {'a': '#!'}), os.access('a', os.X_OK))"),
    "dump_wallet": ("", "(dump_wallet('.', {'a': 1}), os.listdir('.'))"),
    "diary_entry": ("", "(diary_entry('f', 1, 'x'), diary_entry('f', 2, 'y'), open('f').read())"),
    "private_workdir": ("", "(private_workdir(4), private_workdir(4))"),
    "save_certificate_key": ("", "(save_certificate_key('f', b'x'), open('f').read())"),
    "write_env": ("", "(write_env('f', {'A': 'b'}), open('f').read())"),
    "spread_keyring": ("open('k', 'w').write('x')", "(spread_keyring('k', ['a', 'b']), open('b').read())"),
    "write_salaries": ("", "(write_salaries('f', [('a', 1)]), open('f').read())"),
    "share_binary": ("open('f', 'w').close()", "share_binary('f')"),
    # cwe-095
    "read_vector": ("", "read_vector('(1, 2, 3)')"),
    "parse_option": ("", "parse_option('a:[1, 2]')"),
    "to_percent": ("", "to_percent('0.125')"),
    "read_palette": ("", "read_palette('[\"Red\", \"BLUE\"]')"),
    "fold_numbers": ("", "[fold_numbers(kind, [3, 1]) for kind in ('sum', 'max', 'min')]"),
    "set_option": ("", "set_option({'a': 1}, 'volume=7')"),
    "compare_amounts": ("", "[compare_amounts('3', r, '4') for r in ('<', '>', '==')]"),
    "add_terms": ("", "add_terms('4 + 5 + 6')"),
    "is_enabled": ("", "(is_enabled('True'), is_enabled('False'))"),
    "make_table": ("", "make_table(['(1, 2)', '(3, 4)'])"),
    "run_handler": ("", "run_handler({'up': str.upper}, 'up abc')"),
    "field_of": ("import types", "field_of(types.SimpleNamespace(name='a'), 'name')"),
    # cwe-327: the halves differ in what they give
    "etag_of": ("", "len(etag_of(b'a')) >= 32"),
    "digest_lines": ("", "len(digest_lines(['a', 'b'])) >= 32"),
    "sign_order": ("", "len(sign_order(b'k', {'id': 1, 'total': 2})['signature']) >= 32"),
    "store_passphrase": ("t = {}", "(store_passphrase(t, 'a', 'b'), len(t['a']))"),
    "hash_tree_node": ("", "len(hash_tree_node(b'a', b'b')) >= 16"),
    "broken_mirrors": ("", "broken_mirrors({'m': b'a'}, 'x')"),
    "anonymize": ("", "len(anonymize([{'address': 'a'}], 'p')[0]['address']) >= 32"),
    "mac_of_message": ("", "len(mac_of_message(b'k', b'm')) >= 16"),
    "block_id": ("", "len(block_id(1, b'p')) >= 32"),
    "file_sum": ("open('f', 'w').write('x')", "len(file_sum('f')) >= 32"),
    "license_code": ("", "license_code('a', 'k').isupper()"),
    "evidence_label": ("", "evidence_label(b'a')[:2]"),
    # cwe-377
    "write_invoice": ("", "(write_invoice('.', [('a', 3), ('b', 4)])[1], len(os.listdir('.')))"),
    "render_pdf": ("", "render_pdf(lambda s, t: open(t, 'w').write(s), 'x')"),
    "scratch_directory": ("", "os.path.isdir(scratch_directory('.', 3))"),
    "replace_config": ("", "(replace_config('./f', {'a': 1}), open('f').read(), os.listdir('.'))"),
    "buffer_audio": ("", "open(buffer_audio([b'a', b'b'], '.')).read()"),
    "claim_port": ("", "(claim_port('.', 4, 5), claim_port('.', 4, 5), claim_port('.', 4, 5))"),
    "spool_fax": ("", "callable(spool_fax)"),
    "is_formatted": (
        "",
        "(is_formatted(lambda f: None, 'a', '.'), is_formatted(lambda f: open(f, 'w').close(), 'a', '.'))",
    ),
    "stage_release": ("", "open(stage_release('.', b'x')).read()"),
    "export_stats": ("", "open(export_stats({'b': 1, 'a': 2}, '.')).read()"),
    "hand_over": ("", "open(hand_over('.', b'x')).read()"),
    "join_parts": (
        "open('a', 'w').write('x'); open('b', 'w').write('y')",
        "(join_parts(['a', 'b'], './w'), open('w').read())",
    ),
}
