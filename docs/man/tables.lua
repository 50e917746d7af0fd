-- A table of two columns, which would be squeezed on a terminal, becomes a list of terms.
function Table(table)
    local simple = pandoc.utils.to_simple_table(table)
    if #simple.headers ~= 2 then
        return nil
    end
    local items = {}
    for _, row in ipairs(simple.rows) do
        local term = pandoc.utils.blocks_to_inlines(row[1])
        items[#items + 1] = { term, { row[2] } }
    end
    return pandoc.DefinitionList(items)
end
