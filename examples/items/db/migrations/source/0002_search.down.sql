DROP INDEX items_words_idx;
